"""Figures of the paper and questions of our own: what runs they need, and making those."""
