"""How far a run has come, as its checkpoint says; torch-free."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from slowwave.training.run_files import read_counters


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come."""

    step: int = 0
    tokens: int = 0
    flops: int = 0
    seconds: float = 0.0


def find_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run, or None if it has not saved any."""
    candidates = (folder, folder.with_name(folder.name + ".previous"))
    return next((path for path in candidates if (path / "progress.json").exists()), None)


def count_saved_steps(folder: Path) -> int:
    """Steps that the run in `folder` can go on from, 0 if it has saved none."""
    found = find_checkpoint(folder / "checkpoint")
    return 0 if found is None else read_counters(found / "progress.json")["step"]
