"""Scores, floors, FLOPs, and figures drawn from what a run left on disk."""
