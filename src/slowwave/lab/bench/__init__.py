"""Measurements of speed and memory, each beside a peer and beside what the machine can do."""
