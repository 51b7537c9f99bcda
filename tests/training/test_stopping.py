"""Ctrl-C, wherever a run is: what was saved stays, and the next call goes on from there."""

from __future__ import annotations

import dataclasses
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from slowwave.evaluation.evaluate import Scored
from slowwave.experiment import ExperimentConfig, look_up, run_training
from slowwave.models.config import ModelConfig
from slowwave.sleep.config import SleepConfig
from slowwave.tasks.depo import DepoConfig
from slowwave.training.config import TrainConfig
from slowwave.training.process import StopSignals
from slowwave.training.trainer import StepReport

CONFIG = ExperimentConfig(
    name="tiny",
    task=DepoConfig(nodes=6, hops=3, questions=5),
    model=ModelConfig(width=16, mlp_hidden=32, attn_heads=2, delta_heads=2, key_dim=8, value_dim=8),
    sleep=SleepConfig(window=12, passes=2),
    train=TrainConfig(steps=4, batch_size=4, eval_every=2, eval_examples=4, test_examples=96),
)


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def forbid(report: StepReport) -> None:
    raise AssertionError("trained again")


@pytest.mark.parametrize("stop_at", [None, 0.0])
def test_scoring_is_told_of_stopped_and_gone_on_with(tmp_path: Path, stop_at: float | None) -> None:
    """Also of a run that stopped early, as its evaluation had reached a target."""
    config = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, stop_at=stop_at))
    told, out = list[Scored](), tmp_path / "run"

    def interrupt(scored: Scored) -> None:
        told.append(scored)
        if scored.split == "test" and scored.passes == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_training(config, out, on_scored=interrupt)
    steps = 4 if stop_at is None else 2
    evaluations = [("validation", 2, 0, 4), ("validation", 2, 4, 4)] * (steps // 2)
    tests = [("test", 1, done, 96) for done in (0, 64, 96)]
    assert told == [*evaluations, *tests, ("test", 2, 0, 96)]
    assert look_up(config, out).sentence == (
        f"{out}: trained already, {steps} steps; only scoring is left"
    )
    summary = run_training(config, out, report=forbid)
    assert summary is not None
    assert summary["step"] == steps
    whole = run_training(config, tmp_path / "whole")
    assert whole is not None
    assert whole["test"] == summary["test"]


def test_ctrl_c_at_the_last_step_leaves_the_scoring(tmp_path: Path) -> None:
    def interrupt(report: StepReport) -> None:
        if report.progress.step == 4:
            signal.raise_signal(signal.SIGINT)

    assert run_training(CONFIG, tmp_path, report=interrupt) is None
    assert "only scoring is left" in look_up(CONFIG, tmp_path).sentence


def test_ctrl_c_before_a_step_is_over_does_not_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first may compile for minutes, and nothing is lost."""

    waited = list[bool]()

    def compiles(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)
        waited.append(True)

    monkeypatch.setattr("slowwave.training.trainer.predict", compiles)
    with pytest.raises(KeyboardInterrupt):
        run_training(CONFIG, tmp_path)
    assert not waited
    assert look_up(CONFIG, tmp_path).sentence.endswith("nothing was saved yet; starts anew")
    monkeypatch.undo()
    assert run_training(CONFIG, tmp_path) is not None


def test_the_first_signal_waits_and_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    with StopSignals(may_wait=lambda: True) as signals:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert signals.is_asked
        assert capfd.readouterr().err.count("stops when this step is saved") == 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_compiler_that_ctrl_c_ended_is_no_fault() -> None:
    def fail(error: Exception, *, asked: bool) -> None:
        with StopSignals(may_wait=lambda: True):
            if asked:
                signal.raise_signal(signal.SIGINT)
            raise error

    with pytest.raises(KeyboardInterrupt):
        fail(RuntimeError("the compiler was killed"), asked=True)
    with pytest.raises(RuntimeError):
        fail(RuntimeError("the compiler was killed"), asked=False)
    with pytest.raises(ValueError, match="diverged"):
        fail(ValueError("diverged"), asked=True)


def test_other_threads_hear_no_signals() -> None:
    before = signal.getsignal(signal.SIGINT)

    def work() -> None:
        with StopSignals(may_wait=lambda: True):
            assert signal.getsignal(signal.SIGINT) is before

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
