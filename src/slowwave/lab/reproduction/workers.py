"""Trains runs in processes of their own, several at a time, and shows how far they are."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
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

from slowwave.lab.reproduction.runs import PlannedRun, planned_cost
from slowwave.training.run_folder import count_saved_steps

POLL_SECONDS = 0.2
SLOWWAVE = (sys.executable, "-m", "slowwave.cli")
TAIL_BYTES = 1 << 16
LOG_SECONDS = 60.0
# Evaluations and compilation come in bursts, so speed is a mean over this long.
SPEED_SECONDS = 1800.0
TFLOP = 1e12


class Worker:
    """A `slowwave train` at work. errors: what it prints on stderr."""

    def __init__(self, run: PlannedRun, command: Sequence[str]) -> None:
        self.run = run
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        # A process group of its own: Ctrl-C comes to us alone, and we pass it on once.
        self.process = subprocess.Popen(
            [*command, *run.arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.errors,
            process_group=0,
        )


def train_runs(
    runs: Sequence[PlannedRun],
    progress: TrainingProgress,
    *,
    jobs: int,
    command: Sequence[str] = SLOWWAVE,
) -> None:
    """Trains all of `runs`, each by its own command, `jobs` at a time.

    A run that starts from another of them waits for it. A run that fails does not stop the others;
    in the end ValueError says why it did. Ctrl-C (or a terminate signal) lets every run save itself
    and raises KeyboardInterrupt; a second Ctrl-C kills them, which leaves the checkpoints before.
    """
    waiting = [*runs]
    workers: list[Worker] = []
    failures: list[str] = []
    with _terminate_as_interrupt():
        try:
            while waiting or workers:
                while len(workers) < jobs and (run := _find_ready(waiting, workers)):
                    waiting.remove(run)
                    workers.append(Worker(run, command))
                    progress.start(run)
                time.sleep(POLL_SECONDS)
                for worker in [w for w in workers if w.process.poll() is not None]:
                    workers.remove(worker)
                    failure = _failure(worker)
                    progress.end(worker.run, failure)
                    failures += [failure] if failure else []
                progress.update()
        finally:
            _save(workers)
    if failures:
        raise ValueError("; ".join(failures))


def _find_ready(waiting: Sequence[PlannedRun], workers: Sequence[Worker]) -> PlannedRun | None:
    """The first run that starts from none that is still to end."""
    pending = {str(run.folder) for run in [*waiting, *(worker.run for worker in workers)]}
    return next((run for run in waiting if run.config.train.start_from not in pending), None)


def _failure(worker: Worker) -> str:
    """Why a run that has ended failed, empty if it did not."""
    with worker.errors as errors:
        code = worker.process.wait()
        if code == 0:
            return ""
        errors.seek(0)
        lines = errors.read().decode(errors="replace").splitlines()
    said = next((line for line in reversed(lines) if line.strip()), "it printed nothing")
    return f"{worker.run.folder} ended with exit code {code}: {said.removeprefix('slowwave: ')}"


def _save(workers: Sequence[Worker]) -> None:
    """Asks what still runs to save and end, and waits for it."""
    for worker in workers:
        worker.process.terminate()
    try:
        for worker in workers:
            worker.process.wait()
    finally:
        for worker in workers:
            worker.process.kill()
            worker.errors.close()


@contextlib.contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
        self._done = {
            run.folder: count_saved_steps(run.folder) / run.config.train.steps for run in runs
        }
        self._ended = 0
        self._tasks: dict[Path, tuple[PlannedRun, TaskID]] = {}
        self._all = self._bars.add_task("all runs", total=sum(self._tflops.values()), unit="TFLOP")
        self._bars.reset(self._all, completed=round(self._sum_done()))
        self._logged = time.monotonic()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def start(self, run: PlannedRun) -> None:
        """Shows a run from now on."""
        done = count_saved_steps(run.folder)
        goes_on = f", goes on from step {done}" if done else ""
        self._say(f"{run.folder}: started{goes_on}")
        steps = run.config.train.steps
        task = self._bars.add_task(str(run.folder), total=steps, completed=done, unit="steps")
        self._tasks[run.folder] = (run, task)

    def update(self) -> None:
        """Reads how far the runs at work are."""
        for run, task in self._tasks.values():
            step, steps = last_step(run.folder), run.config.train.steps
            self._bars.update(
                task, completed=step, unit="steps, scored now" if step >= steps else "steps"
            )
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
    steps = (_find_step(line) for line in reversed(lines))
    return next((step for step in steps if step is not None), 0)


def _find_step(line: bytes) -> int | None:
    """The step of a line of metrics; None if it has none, or is no line of metrics."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):
        return None
    return step if isinstance(step, int) else None
