"""Conversations in which somebody tells of themselves, and is asked about it much later."""
