"""Figures that are measured, not trained."""

from __future__ import annotations

from pathlib import Path

from slowwave.lab.reproduction.runs import RESULTS

FOLDER = RESULTS / "bench"


def bench_file(what: str) -> Path:
    """Where `slowwave bench` keeps what it measured."""
    return FOLDER / f"{what}.json"


def bench_command(what: str) -> list[str]:
    """What follows `slowwave` in the command that measures it."""
    return ["bench", what, "--out", str(FOLDER)]
