"""The loop: it learns, resumes to the bit, stops when asked, and refuses to go on with NaN."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from slowwave.experiment import (
    ExperimentConfig,
    build,
    load_run,
    make_trainer,
    run_training,
)
from slowwave.models.config import LayerType, ModelConfig
from slowwave.sleep.config import Passes, SleepConfig
from slowwave.storage.checkpoint import load_tensors
from slowwave.storage.json_files import read_json, write_json
from slowwave.tasks.depo import DepoConfig
from slowwave.tasks.rule110 import Rule110Config
from slowwave.training.config import TrainConfig
from slowwave.training.run_folder import RunFolder
from slowwave.training.trainer import StepReport, Trainer, TrainingDiverged
from tiny_models import RECURRENT

TINY = ModelConfig(width=16, mlp_hidden=32, attn_heads=2, delta_heads=2, key_dim=8, value_dim=8)
QUICK = TrainConfig(
    steps=6,
    batch_size=4,
    warmup_steps=2,
    precision="float32",
    log_every=1,
    eval_every=3,
    eval_examples=8,
    save_every=2,
)


@pytest.fixture(autouse=True)
def _few_test_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slowwave.experiment.TEST_EXAMPLES", 64)


def _experiment(**changes: object) -> ExperimentConfig:
    base = ExperimentConfig(
        name="tiny",
        task=DepoConfig(nodes=6, hops=3, questions=5),
        model=TINY,
        sleep=SleepConfig(window=12, passes=2),
        train=QUICK,
    )
    return dataclasses.replace(base, **changes)


def _trainer(config: ExperimentConfig, out: Path) -> Trainer:
    model, task = build(config)
    return make_trainer(config, model, task, RunFolder(out))


def _without_seconds(folder: Path) -> list[dict[str, object]]:
    return [{**line, "seconds": 0} for line in RunFolder(folder).metrics()]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("stop_at_step", [1, 2, 3, 5])
def test_resumed_run_is_bit_identical_to_an_unbroken_one(
    tmp_path: Path, stop_at_step: int, precision: str
) -> None:
    train = dataclasses.replace(QUICK, precision=precision)
    config = _experiment(train=train)
    assert run_training(config, tmp_path / "whole") is not None

    def interrupt(report: StepReport) -> None:
        if report.progress.step == stop_at_step:
            os.kill(os.getpid(), signal.SIGINT)

    assert run_training(config, tmp_path / "broken", report=interrupt) is None
    assert run_training(config, tmp_path / "broken") is not None
    for name in ("model.safetensors", "optimizer.safetensors"):
        whole = load_tensors(tmp_path / "whole" / "checkpoint" / name)
        broken = load_tensors(tmp_path / "broken" / "checkpoint" / name)
        assert whole.keys() == broken.keys()
        for key, tensor in whole.items():
            assert torch.equal(tensor, broken[key]), key
    assert _without_seconds(tmp_path / "whole") == _without_seconds(tmp_path / "broken")


def test_a_kill_between_saves_loses_only_what_came_after(tmp_path: Path) -> None:
    config = _experiment()
    trainer = _trainer(config, tmp_path / "killed")
    trainer.folder.begin(config.to_dict(), {})

    def kill(report: StepReport) -> None:
        if report.progress.step == 5:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        trainer.train(kill)
    assert run_training(config, tmp_path / "killed") is not None
    assert run_training(config, tmp_path / "whole") is not None
    whole = load_tensors(tmp_path / "whole" / "checkpoint" / "model.safetensors")
    killed = load_tensors(tmp_path / "killed" / "checkpoint" / "model.safetensors")
    assert all(torch.equal(whole[key], killed[key]) for key in whole)
    assert _without_seconds(tmp_path / "whole") == _without_seconds(tmp_path / "killed")


def test_signal_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    run_training(_experiment(), tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is before


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    config = _experiment()
    trainer = _trainer(config, tmp_path / "run")
    trainer.folder.begin(config.to_dict(), {})

    def poison(report: StepReport) -> None:
        if report.progress.step == 3:
            with torch.no_grad():
                trainer.model.embedding.weight.fill_(torch.nan)

    with pytest.raises(TrainingDiverged, match=r"loss is nan .* at step 4.*lower train\.muon_lr"):
        trainer.train(poison)
    saved = load_tensors(tmp_path / "run" / "checkpoint" / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in saved.values())
    assert trainer.resume()
    assert trainer.progress.step == 2


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    config = _experiment()
    first = run_training(config, tmp_path / "run")

    def forbid(report: StepReport) -> None:
        raise AssertionError("trained again")

    assert run_training(config, tmp_path / "run", report=forbid) == first


def test_a_run_from_before_a_field_existed_is_known_again(tmp_path: Path) -> None:
    config = _experiment()
    first = run_training(config, tmp_path / "run")
    recorded = read_json(tmp_path / "run" / "config.json")
    del recorded["model"]["initial_weights"]
    write_json(tmp_path / "run" / "config.json", recorded)
    assert run_training(config, tmp_path / "run") == first
    small = _experiment(model=dataclasses.replace(TINY, initial_weights="small"))
    with pytest.raises(ValueError, match="initial_weights is small here and scaled in the run"):
        run_training(small, tmp_path / "run")


def test_a_folder_of_another_config_is_refused(tmp_path: Path) -> None:
    run_training(_experiment(), tmp_path / "run")
    other = _experiment(sleep=SleepConfig(window=12, passes=3))
    difference = r"run: sleep\.passes is 3 here and 2 in the run; use another --out, or the options"
    with pytest.raises(ValueError, match=difference):
        run_training(other, tmp_path / "run")


def test_early_stop_at_a_target(tmp_path: Path) -> None:
    train = dataclasses.replace(QUICK, stop_at=0.0)
    summary = run_training(_experiment(train=train), tmp_path / "run")
    assert summary is not None
    assert summary["step"] == QUICK.eval_every
    assert not summary["finished_schedule"]


def test_a_run_that_was_killed_after_it_reached_its_target_trains_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scoring comes after the last save, and takes its time."""
    config = _experiment(train=dataclasses.replace(QUICK, stop_at=0.0))

    def kill(*arguments: object, **options: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("slowwave.experiment.score", kill)
        with pytest.raises(RuntimeError, match="killed"):
            run_training(config, tmp_path)
    summary = run_training(config, tmp_path)
    assert summary is not None
    assert summary["step"] == QUICK.eval_every


def test_a_loaded_run_scores_as_the_trained_model_did(tmp_path: Path) -> None:
    from slowwave.experiment import score

    config = _experiment()
    summary = run_training(config, tmp_path / "run")
    assert summary is not None
    _, model, task = load_run(tmp_path / "run")
    records = score(model, task, config, passes=(1, 2, 3, 4))
    assert [record.to_dict() for record in records] == summary["test"]


@pytest.mark.parametrize(
    ("sleep", "passes"),
    [
        (SleepConfig(window=7, eviction="none", wake_passes=2), [1]),
        (SleepConfig(window=12, passes=2, eviction="sliding", sinks=1), [1, 2, 3, 4]),
        (
            SleepConfig(window=12, passes=2, consolidator=Passes(between_passes="reset")),
            [1, 2, 3, 4],
        ),
    ],
    ids=["none", "sliding", "reset"],
)
def test_controls_are_trained_and_scored(
    tmp_path: Path, sleep: SleepConfig, passes: list[int]
) -> None:
    """Without eviction any window fits the task, and one pass is all there is to score."""
    summary = run_training(_experiment(sleep=sleep), tmp_path / "run")
    assert summary is not None
    assert [record["passes"] for record in summary["test"]] == passes
    config, _, _ = load_run(tmp_path / "run")
    assert config.sleep == sleep


def test_seeds_change_weights_and_data(tmp_path: Path) -> None:
    other = dataclasses.replace(QUICK, seed=1)
    run_training(_experiment(), tmp_path / "a")
    run_training(_experiment(train=other), tmp_path / "b")
    a = load_tensors(tmp_path / "a" / "checkpoint" / "model.safetensors")
    b = load_tensors(tmp_path / "b" / "checkpoint" / "model.safetensors")
    assert not torch.equal(a["embedding.weight"], b["embedding.weight"])


@pytest.mark.parametrize("kind", RECURRENT)
def test_learning_smoke(tmp_path: Path, kind: LayerType) -> None:
    """A tiny model learns to recall the first bit of two states that it slept on and evicted."""
    config = ExperimentConfig(
        name="smoke",
        task=Rule110Config(width=8, num_states=2, steps=0),
        model=dataclasses.replace(
            TINY,
            layers=("attn", kind, "attn", kind),
            width=32,
            mlp_hidden=64,
            key_dim=16,
            value_dim=16,
        ),
        sleep=SleepConfig(window=8, passes=2),
        train=TrainConfig(
            steps=300,
            batch_size=32,
            muon_lr=2e-2,
            adamw_lr=4e-3,
            eval_every=50,
            eval_examples=64,
            stop_at=0.99,
        ),
    )
    began = time.monotonic()
    summary = run_training(config, tmp_path / "run")
    assert summary is not None
    exact = {record["passes"]: record["overall"]["exact"] for record in summary["test"]}
    assert exact[2] > 0.9, f"after {time.monotonic() - began:.0f} s"
    assert exact[2] > summary["floors"]["constant"] + 0.3


def test_a_run_is_scored_on_as_many_test_examples_as_it_says(tmp_path: Path) -> None:
    config = _experiment(train=dataclasses.replace(QUICK, test_examples=3))
    summary = run_training(config, tmp_path)
    assert summary is not None
    assert {record["overall"]["answers"] for record in summary["test"]} == {3 * 5}
