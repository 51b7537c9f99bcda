"""What "auto" comes to on a processor, and that a run keeps and records what it began with."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from slowwave.experiment import ExperimentConfig, load_run, run_training
from slowwave.models.config import ModelConfig
from slowwave.sleep.config import SleepConfig
from slowwave.storage.json_files import read_json
from slowwave.tasks.depo import DepoConfig
from slowwave.training.config import Precision, TrainConfig
from slowwave.training.precision import choose_precision, compute_dtype, iteration_dtype
from slowwave.training.trainer import StepReport

CPU = torch.device("cpu")
CONFIG = ExperimentConfig(
    name="tiny",
    task=DepoConfig(nodes=6, hops=3, questions=5),
    model=ModelConfig(width=16, mlp_hidden=32, attn_heads=2, delta_heads=2, key_dim=8, value_dim=8),
    sleep=SleepConfig(window=12),
    train=TrainConfig(steps=3, batch_size=4, eval_every=3, eval_examples=8, test_examples=8),
)


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes bfloat16 slow or fast."""

    def make(*, slow: bool) -> None:
        monkeypatch.setattr("slowwave.training.precision.is_bfloat16_slow", lambda device: slow)

    return make


def with_precision(precision: Precision) -> ExperimentConfig:
    train = dataclasses.replace(CONFIG.train, precision=precision)
    return dataclasses.replace(CONFIG, train=train)


def interrupt(report: StepReport) -> None:
    if report.progress.step == 1:
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("slow", [False, True])
def test_auto_is_the_faster_dtype_and_what_is_asked_for_stays(processor: Any, slow: bool) -> None:
    processor(slow=slow)
    assert choose_precision("auto", CPU) == ("float32" if slow else "bfloat16")
    assert choose_precision("float32", CPU) == "float32"
    assert choose_precision("bfloat16", CPU) == "bfloat16"
    assert compute_dtype("auto", CPU) == (None if slow else torch.bfloat16)
    assert iteration_dtype(CPU) == (torch.float32 if slow else torch.bfloat16)


@pytest.mark.parametrize("slow", [False, True])
def test_the_record_says_what_ran(tmp_path: Path, processor: Any, slow: bool) -> None:
    processor(slow=slow)
    assert TrainConfig().precision == "auto"
    run_training(CONFIG, tmp_path)
    ran = "float32" if slow else "bfloat16"
    assert read_json(tmp_path / "config.json")["train"]["precision"] == ran
    environment = read_json(tmp_path / "environment.json")
    assert (environment["precision"], environment["muon"]) == (ran, ran)
    assert "resumed" not in environment


@pytest.mark.parametrize("began_slow", [False, True])
def test_a_run_goes_on_in_the_precision_it_began_with(
    tmp_path: Path, processor: Any, began_slow: bool
) -> None:
    """Muon's iterations are the processor's; where they change, the record says from when on."""
    processor(slow=began_slow)
    assert run_training(CONFIG, tmp_path, report=interrupt) is None
    processor(slow=not began_slow)
    told = list[str]()
    assert run_training(CONFIG, tmp_path, say=told.append) is not None
    ran, muon = ("float32", "bfloat16") if began_slow else ("bfloat16", "float32")
    assert read_json(tmp_path / "config.json")["train"]["precision"] == ran
    environment = read_json(tmp_path / "environment.json")
    assert environment["precision"] == ran
    assert environment["resumed"] == [{"step": 1, "muon": muon}]
    assert len(told) == (0 if began_slow else 1)


def test_another_precision_than_the_one_that_ran_is_refused(tmp_path: Path, processor: Any) -> None:
    processor(slow=True)
    run_training(CONFIG, tmp_path)
    assert run_training(with_precision("float32"), tmp_path) is not None
    with pytest.raises(
        ValueError, match=r"train\.precision is bfloat16 here and float32 in the run"
    ):
        run_training(with_precision("bfloat16"), tmp_path)


def test_a_slow_choice_is_warned_of_in_one_sentence(tmp_path: Path, processor: Any) -> None:
    processor(slow=True)
    told = list[str]()
    run_training(with_precision("bfloat16"), tmp_path / "slow", say=told.append)
    (sentence,) = told
    assert sentence.startswith("train.precision is bfloat16")
    assert "auto or float32" in sentence
    processor(slow=False)
    run_training(with_precision("bfloat16"), tmp_path / "fast", say=told.append)
    assert told == [sentence]


def test_a_run_in_bfloat16_is_loaded_in_float32_where_that_is_faster(
    tmp_path: Path, processor: Any
) -> None:
    processor(slow=False)
    run_training(CONFIG, tmp_path)
    for slow, dtype in ((False, torch.bfloat16), (True, torch.float32)):
        processor(slow=slow)
        config, model, _ = load_run(tmp_path)
        assert config.train.precision == "bfloat16"
        assert {layer.narrow_dtype for layer in model.initial_state(1).layers} == {dtype}
