"""Figures of runs and of streams."""
