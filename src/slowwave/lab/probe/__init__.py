"""Reads what fast weights hold, by linear probes."""
