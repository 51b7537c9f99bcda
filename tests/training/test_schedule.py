"""Two stages: hard eviction first, perhaps with frozen layers, then the whole recipe."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from slowwave.experiment import ExperimentConfig, build, run_training
from slowwave.lab.reproduction.runs import PlannedRun, planned_cost
from slowwave.models.backbone import HybridLM
from slowwave.models.config import LayerType, ModelConfig
from slowwave.sleep.config import Passes, SleepConfig
from slowwave.sleep.objective import plan_batch
from slowwave.storage.checkpoint import load_tensors
from slowwave.tasks.rule110 import Rule110Config
from slowwave.training.config import TrainConfig
from slowwave.training.run_folder import RunFolder
from slowwave.training.schedule import learning_rate_factor, recurrent_parameters, sleep_at
from slowwave.training.trainer import StepReport
from tiny_models import RECURRENT

STEPS, FIRST = 6, 3
SLIDING = SleepConfig(
    window=6, passes=2, eviction="sliding", sinks=1, consolidator=Passes(kept_cache="first_pass")
)
TRAIN = TrainConfig(
    steps=STEPS,
    first_stage_fraction=FIRST / STEPS,
    batch_size=4,
    warmup_steps=2,
    weight_decay=0.1,
    log_every=1,
    eval_every=3,
    eval_examples=8,
    save_every=2,
)
TINY = ExperimentConfig(
    name="tiny",
    task=Rule110Config(width=6, num_states=3),
    model=ModelConfig(width=16, mlp_hidden=32, attn_heads=2, delta_heads=2, key_dim=8, value_dim=8),
    sleep=SLIDING,
    train=TRAIN,
)
RUNS = ("whole", "broken")
FROZEN = dataclasses.replace(TRAIN, first_stage_trains="recurrent")


@pytest.fixture(autouse=True)
def _few_test_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slowwave.experiment.TEST_EXAMPLES", 8)


def _stop(config: ExperimentConfig, out: Path, step: int) -> dict[str, Tensor]:
    """Trains until a step is done; returns the weights that a resumed run starts from."""

    def interrupt(report: StepReport) -> None:
        if report.progress.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    run_training(config, out, report=interrupt)
    return load_tensors(out / "checkpoint" / "model.safetensors")


def _moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def _drawn(config: ExperimentConfig) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in build(config)[0].state_dict().items()}


def test_frozen_weights_stay_and_learn_after_the_first_stage(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, train=FROZEN)
    drawn = _drawn(config)
    warmed = _stop(config, tmp_path / "run", FIRST)
    assert _moved(drawn, warmed) == set(recurrent_parameters(build(config)[0]))
    assert run_training(config, tmp_path / "run") is not None
    learned = load_tensors(tmp_path / "run" / "checkpoint" / "model.safetensors")
    assert _moved(warmed, learned) == set(drawn)


def test_recurrent_layers_are_their_mixers_and_norms() -> None:
    kinds = get_args(LayerType)
    model = HybridLM(ModelConfig(vocab_size=5, layers=kinds))
    expected = {
        name
        for name, _ in model.named_parameters()
        for place, kind in enumerate(kinds)
        if kind in RECURRENT and name.startswith(f"blocks.{place}.mixer")
    }
    assert set(recurrent_parameters(model)) == expected
    assert "blocks.2.mixer_norm.weight" in expected


def test_the_first_stage_is_hard_eviction_to_the_bit(tmp_path: Path) -> None:
    """Up to its end nothing tells the run from one that never slides; then everything does."""
    hard = dataclasses.replace(TINY, sleep=SleepConfig(window=6, passes=2))
    for step in (FIRST, FIRST + 1):
        evicted = _stop(hard, tmp_path / f"hard-{step}", step)
        slid = _stop(TINY, tmp_path / f"sliding-{step}", step)
        assert bool(_moved(evicted, slid)) == (step > FIRST)
    assert sleep_at(FIRST - 1, SLIDING, TRAIN) == hard.sleep
    assert sleep_at(FIRST, SLIDING, TRAIN) == SLIDING
    assert sleep_at(0, SLIDING, TrainConfig()) == SLIDING


@pytest.mark.parametrize("train", [TRAIN, FROZEN], ids=["all", "recurrent"])
@pytest.mark.parametrize("step", [2, FIRST, 5])
def test_a_run_resumed_in_either_stage_is_bit_identical(
    tmp_path: Path, step: int, train: TrainConfig
) -> None:
    config = dataclasses.replace(TINY, train=train)
    assert run_training(config, tmp_path / "whole") is not None
    _stop(config, tmp_path / "broken", step)
    assert run_training(config, tmp_path / "broken") is not None
    for name in ("model.safetensors", "optimizer.safetensors"):
        whole, broken = (load_tensors(tmp_path / run / "checkpoint" / name) for run in RUNS)
        assert whole.keys() == broken.keys()
        assert _moved(whole, broken) == set()
    whole, broken = (RunFolder(tmp_path / run).metrics() for run in RUNS)
    assert [{**line, "seconds": 0} for line in whole] == [{**line, "seconds": 0} for line in broken]


def test_both_stages_are_counted(tmp_path: Path) -> None:
    summary = run_training(TINY, tmp_path / "run")
    assert summary is not None
    model, task = build(TINY)
    batch = task.batch("train", range(TRAIN.batch_size))
    hard, slid = (
        plan_batch(batch, sleep_at(step, SLIDING, TRAIN)).training_flops(model.config)
        for step in (0, FIRST)
    )
    assert hard < slid
    assert summary["flops"] == FIRST * hard + (STEPS - FIRST) * slid
    assert summary["tokens"] == STEPS * batch.stream.inputs.numel()
    cost = planned_cost(PlannedRun("tiny", "run", {}, TINY))
    assert (cost.tokens, cost.flops) == (summary["tokens"], summary["flops"])


def test_what_was_compiled_for_the_first_stage_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else both stages together need more versions of a function than torch keeps."""
    resets: list[None] = []
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(torch.compiler, "reset", lambda: resets.append(None))
    for name, fraction, expected in (("one", 0.0, 0), ("two", 0.5, 1)):
        train = dataclasses.replace(TRAIN, compile=True, first_stage_fraction=fraction)
        run_training(dataclasses.replace(TINY, train=train), tmp_path / name)
        assert len(resets) == expected


def test_each_stage_warms_its_rates_up() -> None:
    config = TrainConfig(steps=100, first_stage_fraction=0.3, warmup_steps=10, decay_fraction=0.4)
    factors = [learning_rate_factor(step, config) for step in range(100)]
    assert config.first_stage_steps == 30
    assert factors[:10] == factors[30:40] == pytest.approx([n / 10 for n in range(1, 11)])
    assert factors[10:30] == [1.0] * 20
    assert factors[40:60] == [1.0] * 20
    late = dataclasses.replace(config, first_stage_fraction=0.8)
    assert learning_rate_factor(89, late) == pytest.approx(1 - (1 - late.min_lr_ratio) * 30 / 40)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"first_stage_fraction": 1.0}, r"train\.first_stage_fraction is 1\.0; use 0 to below 1"),
        (
            {"first_stage_trains": "recurrent"},
            r"train\.first_stage_trains is recurrent, but train\.steps has no first stage; set",
        ),
    ],
)
def test_bad_values_are_refused_by_name(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        TrainConfig.from_dict(changes)


def test_a_first_stage_without_anything_to_do_is_refused() -> None:
    endless = dataclasses.replace(TINY, sleep=SleepConfig(eviction="none"))
    with pytest.raises(ValueError, match=r"train\.first_stage_fraction is 0\.5 with sleep\.evi"):
        build(endless)
    attention = dataclasses.replace(TINY.model, layers=("attn", "attn"))
    with pytest.raises(ValueError, match=r"recurrent, but model\.layers has attn alone; use all"):
        build(dataclasses.replace(TINY, model=attention, train=FROZEN))
