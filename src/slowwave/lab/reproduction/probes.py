"""Probing the runs of a figure, which takes trained models; records keep none."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from slowwave.lab.memory_plots import PROBE_FILE
from slowwave.lab.probe import probe_run
from slowwave.lab.reproduction.runs import PlannedRun, find_state
from slowwave.status_line import StatusLine
from slowwave.training.progress import find_checkpoint

# Beside what is recorded, which stays as it is.
TRAINED_AGAIN = Path("runs")


def probe_file(run: PlannedRun) -> Path:
    """Where the probe of a run is recorded."""
    return run.folder / PROBE_FILE


def list_unprobed(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The runs whose probe is not recorded."""
    return [run for run in runs if not probe_file(run).exists()]


def plan_again(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Runs to train once more: their probe is missing, and the record has no checkpoint."""
    return [again for run in list_unprobed(runs) if (again := _find_trained(run)) != run]


def probe_runs(runs: Sequence[PlannedRun], console: Console) -> None:
    """Probes what is not recorded of trained runs, each into its record."""
    for run in list_unprobed(runs):
        trained = _find_trained(run).folder
        console.print(f"{trained}: probing its fast weights", soft_wrap=True)
        with StatusLine() as status:
            probe_run(trained, run.folder, tell=status.show)


def print_probes(runs: Sequence[PlannedRun], console: Console) -> None:
    """Every probe with its state."""
    missing = list_unprobed(runs)
    for run in runs:
        state = "to do" if run in missing else "recorded"
        console.print(f"{probe_file(run)}: {state}", soft_wrap=True)


def _find_trained(run: PlannedRun) -> PlannedRun:
    """The run, or the same to be trained elsewhere if its record has no checkpoint."""
    is_lost = find_state(run) == "recorded" and find_checkpoint(run.folder / "checkpoint") is None
    return dataclasses.replace(run, root=TRAINED_AGAIN) if is_lost else run
