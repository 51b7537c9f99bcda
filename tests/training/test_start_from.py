"""A run that starts from another has its weights and its cost, and nothing else of it."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import pytest
import torch

from slowwave.experiment import ExperimentConfig, run_training
from slowwave.models.config import ModelConfig
from slowwave.sleep.config import SleepConfig
from slowwave.storage.checkpoint import load_tensors
from slowwave.tasks.rule110 import Rule110Config
from slowwave.training.config import TrainConfig
from slowwave.training.trainer import StepReport

TRAIN = TrainConfig(
    steps=3, batch_size=4, warmup_steps=1, log_every=1, eval_every=3, eval_examples=8, save_every=1
)
FIRST = ExperimentConfig(
    name="tiny",
    task=Rule110Config(width=6, num_states=2),
    model=ModelConfig(width=16, mlp_hidden=32, attn_heads=2, delta_heads=2, key_dim=8, value_dim=8),
    sleep=SleepConfig(window=6),
    train=TRAIN,
)


@pytest.fixture(autouse=True)
def _few_test_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slowwave.experiment.TEST_EXAMPLES", 8)


def _continue(folder: Path, **changes: object) -> ExperimentConfig:
    train = dataclasses.replace(TRAIN, start_from=str(folder), seed=1, **changes)
    return dataclasses.replace(FIRST, sleep=SleepConfig(window=6, passes=2), train=train)


def test_training_starts_with_the_weights_and_the_cost_of_the_other_run(tmp_path: Path) -> None:
    first = run_training(FIRST, tmp_path / "first")
    # A rate of almost nothing moves no weight, so that what came before is seen.
    slow = _continue(tmp_path / "first", muon_lr=1e-30, adamw_lr=1e-30)
    second = run_training(slow, tmp_path / "second")
    alone = run_training(
        dataclasses.replace(slow, train=dataclasses.replace(slow.train, start_from=None)),
        tmp_path / "alone",
    )
    assert first and second and alone
    weights = [
        load_tensors(tmp_path / name / "checkpoint" / "model.safetensors")
        for name in ("first", "second", "alone")
    ]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert not all(torch.equal(tensor, weights[2][name]) for name, tensor in weights[0].items())
    assert second["step"] == 3
    for counted in ("tokens", "flops"):
        assert second[counted] == first[counted] + alone[counted]
    assert second["seconds"] > first["seconds"]


def test_an_interrupted_run_goes_on_from_itself_to_the_bit(tmp_path: Path) -> None:
    run_training(FIRST, tmp_path / "first")
    config = _continue(tmp_path / "first")
    whole = run_training(config, tmp_path / "whole")

    def interrupt(report: StepReport) -> None:
        if report.progress.step == 1:
            os.kill(os.getpid(), signal.SIGINT)

    assert run_training(config, tmp_path / "broken", report=interrupt) is None
    broken = run_training(config, tmp_path / "broken")
    assert whole and broken
    assert broken["tokens"] == whole["tokens"]
    weights = [
        load_tensors(tmp_path / name / "checkpoint" / "model.safetensors")
        for name in ("whole", "broken")
    ]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_the_time_left_does_not_count_the_other_run(tmp_path: Path) -> None:
    first = run_training(FIRST, tmp_path / "first")
    assert first
    reports: list[StepReport] = []
    run_training(_continue(tmp_path / "first"), tmp_path / "second", report=reports.append)
    spent = reports[-1].progress.seconds - first["seconds"]
    assert reports[0].seconds_left < 3 * spent
    assert reports[-1].seconds_left == 0


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train\.start_from is .*holds no finished run"):
        run_training(_continue(tmp_path / "first"), tmp_path / "second")
    assert not (tmp_path / "second" / "config.json").exists()

    def interrupt(_: StepReport) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    assert run_training(FIRST, tmp_path / "first", report=interrupt) is None  # with a checkpoint
    with pytest.raises(ValueError, match=r"train\.start_from is .*holds no finished run"):
        run_training(_continue(tmp_path / "first"), tmp_path / "second")


def test_a_model_of_other_sizes_is_refused(tmp_path: Path) -> None:
    run_training(FIRST, tmp_path / "first")
    config = _continue(tmp_path / "first")
    wider = dataclasses.replace(config, model=dataclasses.replace(config.model, width=32))
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        run_training(wider, tmp_path / "second")
