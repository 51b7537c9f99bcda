"""How far a run has come, as its checkpoint says; torch-free."""

from __future__ import annotations

import dataclasses
from pathlib import Path


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
