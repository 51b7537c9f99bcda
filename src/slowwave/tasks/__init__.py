"""Synthetic tasks: a stream to read and sleep over, then questions about it."""
