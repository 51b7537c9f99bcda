"""How far training runs are and how long they will take, on a terminal or in a log."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from slowwave.lab.reproduction.runs import PlannedRun, planned_cost, steps_done

TAIL_BYTES = 1 << 16
LOG_SECONDS = 60.0
# Evaluations and compilation come in bursts, so speed is a mean over this long.
SPEED_SECONDS = 1800.0
TFLOP = 1e12
SCORING = "steps, scored now"


class TrainingProgress:
    """A bar for every run at work, by steps, and one for all of them, by FLOPs.

    Without a terminal, a line when a run starts or ends, and one a minute.
    """

    def __init__(self, runs: Sequence[PlannedRun], console: Console) -> None:
        self._console = console
        # What rich takes for one may be a file, where a variable of the environment says so.
        self._is_live = console.is_terminal and console.file.isatty()
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}, left"),
            TimeRemainingColumn(),
            console=console,
            disable=not self._is_live,
            speed_estimate_period=SPEED_SECONDS,
        )
        self._tflops = {run.folder: planned_cost(run).flops / TFLOP for run in runs}
        self._done = {run.folder: steps_done(run) / run.config.train.steps for run in runs}
        self._ended = 0
        self._tasks: dict[Path, tuple[PlannedRun, TaskID]] = {}
        self._all = self._bars.add_task("all runs", total=sum(self._tflops.values()), unit="TFLOP")
        self._bars.reset(self._all, completed=round(self._sum_done()))
        self._logged = time.monotonic()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def start(self, run: PlannedRun) -> None:
        """Shows a run from now on."""
        done = steps_done(run)
        goes_on = f", goes on from step {done}" if done else ""
        self._say(f"{run.folder}: started{goes_on}")
        steps = run.config.train.steps
        task = self._bars.add_task(str(run.folder), total=steps, completed=done, unit="steps")
        self._tasks[run.folder] = (run, task)

    def update(self) -> None:
        """Reads how far the runs at work are."""
        for run, task in self._tasks.values():
            step, steps = last_step(run.folder), run.config.train.steps
            self._bars.update(task, completed=step, unit=SCORING if step >= steps else "steps")
            self._done[run.folder] = step / steps
        self._bars.update(self._all, completed=self._sum_done())
        if not self._is_live and time.monotonic() - self._logged > LOG_SECONDS:
            self._logged = time.monotonic()
            self._log()

    def end(self, run: PlannedRun, failure: str) -> None:
        """Takes a run off the screen; a failure says why it ended."""
        _, task = self._tasks.pop(run.folder)
        self._bars.remove_task(task)
        # Whatever is left of it will not be trained now.
        self._done[run.folder] = 1.0
        self._ended += 1
        self._say(f"{failure or f'{run.folder}: recorded'} ({self._ended} of {len(self._done)})")

    def _sum_done(self) -> float:
        return sum(share * self._tflops[folder] for folder, share in self._done.items())

    def _log(self) -> None:
        for task in self._bars.tasks:
            left = task.time_remaining
            shown = "" if left is None else f", left {left // 3600:.0f}h{left % 3600 // 60:02.0f}m"
            unit = task.fields["unit"]
            self._say(
                f"{task.description}: {task.completed:.0f}/{task.total or 0:.0f} {unit}{shown}"
            )

    def _say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)


def last_step(folder: Path) -> int:
    """The newest step that a run has logged, 0 if none."""
    try:
        with (folder / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            # What follows the last line break may still be being written.
            *lines, _ = file.read().split(b"\n")
    except FileNotFoundError:
        return 0
    steps = (find_step(line) for line in reversed(lines))
    return next((step for step in steps if step is not None), 0)


def find_step(line: bytes) -> int | None:
    """The step of a line of metrics; None if it has none, whatever it is."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):
        return None
    return step if isinstance(step, int) else None
