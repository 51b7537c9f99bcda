"""Conversations in which a user tells of themselves, and is asked about it much later."""
