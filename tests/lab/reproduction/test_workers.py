"""Runs are trained side by side; a failure or Ctrl-C loses nothing of the others."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from slowwave.console import PlainConsole
from slowwave.experiment import ExperimentConfig
from slowwave.lab.reproduction.runs import PlannedRun, find_state
from slowwave.lab.reproduction.workers import TrainingProgress, last_step, train_runs
from slowwave.storage.json_files import write_json
from slowwave.tasks.depo import DepoConfig
from slowwave.training.run_folder import count_saved_steps

# Stands in for `slowwave train`: its name says what it does, its last argument is the run folder.
CHILD = """
import pathlib, signal, sys, time
out = pathlib.Path(sys.argv[-1])
out.mkdir(parents=True)
def save(*_):
    (out / "saved").touch()
    sys.exit(130)
signal.signal(signal.SIGTERM, save)
(out / "ready").touch()
if "fails" in out.name:
    sys.exit("a warning\\nslowwave: loss is nan")
while "waits" in out.name:
    time.sleep(0.01)
(out / "done").touch()
"""
PROGRESS = {"step": 250, "tokens": 1, "flops": 1, "seconds": 1.0}
COMMAND = (sys.executable, "-c", CHILD)


class Watcher(TrainingProgress):
    """Counts the runs at work, and acts once all that should wait do so."""

    def __init__(
        self, runs: list[PlannedRun], act: Callable[[], None] = lambda: None, width: int = 80
    ) -> None:
        self.text = io.StringIO()
        super().__init__(runs, PlainConsole(file=self.text, width=width))
        self.runs, self.act = runs, act
        self.at_work, self.most_at_work = 0, 0

    def start(self, run: PlannedRun) -> None:
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        super().start(run)

    def end(self, run: PlannedRun, failure: str) -> None:
        self.at_work -= 1
        super().end(run, failure)

    def update(self) -> None:
        super().update()
        if all((run.folder / "ready").exists() for run in self.runs):
            self.act()


def _runs(*names: str) -> list[PlannedRun]:
    config = ExperimentConfig(name="tiny", task=DepoConfig())
    return [PlannedRun("tiny", name, {}, config) for name in names]


def _interrupt() -> None:
    raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def _work_in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_run_is_trained_and_no_more_than_jobs_at_a_time() -> None:
    runs = _runs("a", "b", "c", "d", "e")
    watcher = Watcher(runs)
    train_runs(runs, watcher, jobs=2, command=COMMAND)
    assert all((run.folder / "done").exists() for run in runs)
    assert watcher.most_at_work == 2
    assert "results/tiny/e: recorded (5 of 5)" in watcher.text.getvalue()


def test_a_failure_is_reported_after_the_others_are_trained() -> None:
    runs = _runs("fails", "b", "c")
    with pytest.raises(ValueError, match="results/tiny/fails ended with exit code 1: loss is nan"):
        train_runs(runs, Watcher(runs), jobs=1, command=COMMAND)
    assert all((run.folder / "done").exists() for run in runs[1:])


@pytest.mark.parametrize("act", [_interrupt, lambda: os.kill(os.getpid(), signal.SIGTERM)])
def test_an_interrupt_lets_every_run_save_itself(act: Callable[[], None]) -> None:
    runs = _runs("waits-a", "waits-b")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        train_runs(runs, Watcher(runs, act), jobs=2, command=COMMAND)
    for run in runs:
        assert (run.folder / "saved").exists()
        assert not (run.folder / "done").exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_progress_starts_where_a_run_was_saved_and_follows_its_log() -> None:
    (run,) = _runs("a")
    write_json(run.folder / "config.json", run.config.to_dict())
    assert (find_state(run), count_saved_steps(run.folder)) == ("to do", 0)
    write_json(run.folder / "checkpoint" / "progress.json", PROGRESS)
    assert (find_state(run), count_saved_steps(run.folder)) == ("partly", 250)
    watcher = Watcher([run])
    watcher.start(run)
    assert "goes on from step 250" in watcher.text.getvalue()
    (run.folder / "metrics.jsonl").write_text('{"step": 250}\n{"step": 500}\n{"st')
    assert last_step(run.folder) == 500
    metrics = run.folder / "metrics.jsonl"
    metrics.write_text(metrics.read_text() + "\n[1]\n")  # whatever that is
    assert last_step(run.folder) == 500
    watcher.update()
    watcher._log()
    lines = watcher.text.getvalue().splitlines()
    assert any(line.startswith("results/tiny/a: 500/1000 steps") for line in lines)
    (whole,) = (line for line in lines if line.startswith("all runs: "))
    done, total = whole.removeprefix("all runs: ").split()[0].split("/")
    assert int(total) == pytest.approx(2 * int(done), abs=1)


def test_a_run_waits_for_the_one_it_starts_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    second, first, other = _runs("second", "first", "other")
    config = dataclasses.replace(
        second.config,
        train=dataclasses.replace(second.config.train, start_from=str(first.folder)),
    )
    second = dataclasses.replace(second, config=config)
    runs = [second, first, other]
    with Watcher(runs) as watcher:
        train_runs(runs, watcher, jobs=3, command=COMMAND)
    done = {run.name: (run.folder / "done").stat().st_mtime_ns for run in runs}
    assert done["second"] == max(done.values())
    assert watcher.most_at_work == 2


def test_a_run_that_is_trained_is_said_to_be_scored() -> None:
    (run,) = _runs("a")
    run.folder.mkdir(parents=True)
    watcher = Watcher([run])
    watcher.start(run)
    (run.folder / "metrics.jsonl").write_text('{"step": 1000}\n')
    watcher.update()
    watcher._log()
    assert "results/tiny/a: 1000/1000 steps, scored now" in watcher.text.getvalue()


def test_a_file_gets_no_bars_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    runs = _runs("a")
    watcher = Watcher(runs)
    with watcher:
        train_runs(runs, watcher, jobs=1, command=COMMAND)
    assert "\x1b" not in watcher.text.getvalue()
