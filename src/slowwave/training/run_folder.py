"""What a run leaves on disk, how far it says the run is, and what figures are drawn from.

config.json, environment.json, metrics.jsonl, summary.json, and checkpoint/ to resume from;
torch-free.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from slowwave.storage.files import write_atomically
from slowwave.storage.json_files import dump_lines, write_json
from slowwave.training.config import TrainConfig
from slowwave.training.run_files import (
    read_counters,
    read_environment,
    read_metrics,
    read_summary,
)


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


class RunFolder:
    """The files of one training run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def checkpoint(self) -> Path:
        """Folder of the newest checkpoint."""
        return self.path / "checkpoint"

    @property
    def metrics_file(self) -> Path:
        """A line for each so many steps, and for each evaluation."""
        return self.path / "metrics.jsonl"

    @property
    def summary_file(self) -> Path:
        """Written at the very end."""
        return self.path / "summary.json"

    @property
    def config_file(self) -> Path:
        """Written first of all."""
        return self.path / "config.json"

    @property
    def environment_file(self) -> Path:
        """Of what the run was made with, and in what it was resumed."""
        return self.path / "environment.json"

    def begin(self, config: dict[str, Any], environment: dict[str, Any]) -> None:
        """Writes the resolved config and the environment; the metrics start empty."""
        write_json(self.config_file, config)
        write_json(self.environment_file, environment)
        write_atomically(self.metrics_file, b"")

    def note_resumption(self, step: int, environment: dict[str, Any]) -> None:
        """Adds to the environment what is another from `step` on, under "resumed"."""
        recorded = read_environment(self.environment_file) if self.environment_file.exists() else {}
        resumed: list[dict[str, Any]] = recorded.get("resumed", [])
        known = recorded | {key: value for entry in resumed for key, value in entry.items()}
        changed = {key: value for key, value in environment.items() if known.get(key) != value}
        if changed:
            resumed = [*resumed, {"step": step, **changed}]
            write_json(self.environment_file, recorded | {"resumed": resumed})

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Adds one JSON line."""
        with self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")

    def sync_metrics(self) -> None:
        """Makes the lines so far outlive a loss of power, as the checkpoint after them does."""
        with self.metrics_file.open("a") as file:
            os.fsync(file.fileno())

    def metrics(self) -> list[dict[str, Any]]:
        """All lines written so far, without a last one that was cut; see `read_metrics`."""
        return read_metrics(self.metrics_file, drop_cut=True)

    def drop_metrics_after(self, step: int) -> list[dict[str, Any]]:
        """Forgets lines of steps that a resumed run will take again, and returns the others."""
        kept = [line for line in self.metrics() if line["step"] <= step]
        write_atomically(self.metrics_file, dump_lines(kept))
        return kept

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes the result of a finished run."""
        write_json(self.summary_file, summary)

    def summary(self) -> dict[str, Any]:
        """The result of a finished run; raises ValueError if it cannot be read."""
        return read_summary(self.summary_file)

    @property
    def is_finished(self) -> bool:
        """Whether a summary was written."""
        return self.summary_file.exists()

    @property
    def is_begun(self) -> bool:
        """Whether there is anything of a run."""
        files = (self.config_file, self.summary_file, self.metrics_file)
        return find_checkpoint(self.checkpoint) is not None or any(file.exists() for file in files)


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
