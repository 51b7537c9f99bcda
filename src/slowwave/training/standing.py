"""How far the run in a folder is, told without loading its model; torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from slowwave.training.config import TrainConfig
from slowwave.training.progress import count_saved_steps, find_checkpoint
from slowwave.training.run_folder import RunFolder


class Standing(NamedTuple):
    """sentence: what is to be said of it at once, "" of a run that is new. summary: that of a run
    which is finished, else None."""

    sentence: str
    summary: dict[str, Any] | None = None


def find_standing(folder: RunFolder, train: TrainConfig) -> Standing:
    """Where a run with this config stands.

    A summary that cannot be read is written anew if the checkpoint is there; raises ValueError if
    it is not, or if a file that the run goes on from is damaged.
    """
    path, found = folder.path, find_checkpoint(folder.checkpoint)
    again = ""
    if folder.is_finished:
        try:
            summary = folder.summary()
        except ValueError as error:
            if found is None:
                raise ValueError(f"{error}, or delete {path} to train it anew") from None
            again = f"{error}: the run is scored again; "
        else:
            return Standing(f"{path}: finished already, {summary['step']:,} steps", summary)
    if found is None:
        return Standing(f"{path}: nothing was saved yet; starts anew" if folder.is_begun else "")
    step = count_saved_steps(path)
    if step >= train.steps or has_reached(train.stop_at, find_exact(folder.metrics())):
        return Standing(f"{again}{path}: trained already, {step:,} steps; only scoring is left")
    return Standing(f"{again}{path}: goes on from step {step:,} of {train.steps:,}")


def find_exact(metrics: Sequence[dict[str, Any]]) -> float | None:
    """Exact match over all groups in the newest evaluation; None if there was none."""
    for line in reversed(metrics):
        if line.get("evaluation") is not None:
            return line["evaluation"]["overall"]["exact"]
    return None


def has_reached(target: float | None, exact: float | None) -> bool:
    """Whether a run stops early, as its newest evaluation says."""
    return target is not None and exact is not None and exact >= target
