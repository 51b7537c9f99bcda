"""Trains runs in processes of their own, several at a time, and saves them when interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from slowwave.lab.reproduction.progress import TrainingProgress
from slowwave.lab.reproduction.runs import PlannedRun

POLL_SECONDS = 0.2
SLOWWAVE = (sys.executable, "-m", "slowwave.cli")


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


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
