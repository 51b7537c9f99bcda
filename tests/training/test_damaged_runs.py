"""What a loss of power, or a hand, did to the files of a run is repaired or told by its file."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from slowwave.experiment import (
    ExperimentConfig,
    build,
    load_run,
    look_up,
    make_trainer,
    run_training,
)
from slowwave.models.config import ModelConfig
from slowwave.sleep.config import SleepConfig
from slowwave.storage.checkpoint import load_tensors, save_tensors
from slowwave.tasks.depo import DepoConfig
from slowwave.training import checkpoint
from slowwave.training.config import TrainConfig
from slowwave.training.run_folder import RunFolder
from slowwave.training.trainer import StepReport, TrainingDiverged

CONFIG = ExperimentConfig(
    name="tiny",
    task=DepoConfig(nodes=6, hops=3, questions=5),
    model=ModelConfig(width=16, mlp_hidden=32, attn_heads=2, delta_heads=2, key_dim=8, value_dim=8),
    sleep=SleepConfig(window=12, passes=2),
    train=TrainConfig(
        steps=6,
        batch_size=4,
        warmup_steps=2,
        log_every=1,
        eval_every=3,
        eval_examples=8,
        save_every=2,
        test_examples=8,
    ),
)
SAVED = 4


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed a step after a checkpoint, and one that is finished."""
    folder = tmp_path_factory.mktemp("runs")

    def kill(report: StepReport) -> None:
        if report.progress.step == SAVED + 1:
            raise Killed

    with pytest.raises(Killed):
        run_training(CONFIG, folder / "killed", report=kill)
    assert run_training(CONFIG, folder / "whole") is not None
    return folder


@pytest.fixture
def killed(runs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(runs / "killed", tmp_path / "run"))


@pytest.fixture
def whole(runs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(runs / "whole", tmp_path / "run"))


def forbid(report: StepReport) -> None:
    raise AssertionError("trained again")


def drop(found: dict[str, torch.Tensor], key: str) -> None:
    """Takes out the first entry of this kind."""
    del found[min(name for name in found if name.endswith(f":{key}"))]


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    return [{**line, "seconds": 0} for line in RunFolder(folder).metrics()]


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_tensors(folder / "checkpoint" / "model.safetensors")


@pytest.mark.parametrize("tail", [b'{"step": 6, "tok', b"\0" * 512, b'{"step": 6'])
def test_half_a_last_line_is_dropped_and_its_step_taken_again(
    killed: Path, runs: Path, tail: bytes
) -> None:
    with (killed / "metrics.jsonl").open("ab") as file:
        file.write(tail)
    assert look_up(CONFIG, killed).sentence == f"{killed}: goes on from step 4 of 6"
    said = list[str]()
    assert run_training(CONFIG, killed, say=said.append) is not None
    assert said == []
    assert read_metrics(killed) == read_metrics(runs / "whole")
    mine, theirs = read_weights(killed), read_weights(runs / "whole")
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_metrics_that_end_before_the_checkpoint_are_told(killed: Path) -> None:
    path = killed / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if json.loads(line)["step"] < SAVED))
    said = list[str]()
    assert run_training(CONFIG, killed, say=said.append) is not None
    (sentence,) = said
    assert f"{path}: ends at step 3, and the checkpoint is at 4" in sentence
    assert [line["step"] for line in read_metrics(killed)] == [1, 2, 3, 3, 5, 6, 6]


def test_metrics_are_on_disk_before_their_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened = list[str]()
    sync, save = RunFolder.sync_metrics, checkpoint.save_progress
    monkeypatch.setattr(
        RunFolder, "sync_metrics", lambda self: (happened.append("sync"), sync(self))
    )
    monkeypatch.setattr(
        "slowwave.training.trainer.save_progress",
        lambda *given: (happened.append("save"), save(*given)),
    )
    assert run_training(CONFIG, tmp_path / "run") is not None
    assert happened == ["sync", "save"] * 3


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("config.json", "", "config.json: not valid JSON"),
        ("config.json", '{"name": "ti', "config.json: not valid JSON"),
        ("config.json", "[]", "config.json: ExperimentConfig: "),
        ("config.json", None, "no config.json beside its run; restore it, or use another --out"),
        ("metrics.jsonl", "{}\n", "metrics.jsonl: line 1: step: is missing; restore the file"),
        ("metrics.jsonl", '{"step": NaN}\n', "metrics.jsonl: line 1 is not JSON (NaN is no num"),
        ("checkpoint/progress.json", "", "progress.json: not valid JSON"),
        ("checkpoint/progress.json", '{"step": 4}', "progress.json: tokens: is missing; restore"),
        ("checkpoint/model.safetensors", "", "model.safetensors: truncated or not a"),
        ("checkpoint/model.safetensors", None, "model.safetensors: no such file"),
        ("checkpoint/optimizer.safetensors", "", "optimizer.safetensors: truncated or not a"),
        ("checkpoint/optimizer.safetensors", None, "optimizer.safetensors: no such file"),
    ],
)
def test_other_damage_is_told_by_its_file(
    killed: Path, file: str, content: str | None, sentence: str
) -> None:
    (killed / file).unlink()
    if content is not None:
        (killed / file).write_text(content)
    before = sorted(path for path in killed.rglob("*"))
    with pytest.raises(ValueError, match=re.escape(sentence)) as refused:
        run_training(CONFIG, killed)
    assert "\n" not in str(refused.value) and str(killed) in str(refused.value)
    if file.endswith("safetensors"):
        assert f"or delete {killed / 'checkpoint'} to train from the start" in str(refused.value)
    assert sorted(path for path in killed.rglob("*")) == before


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda found: found.clear(), "is missing; restore it"),
        *(
            (lambda found, key=key: drop(found, key), f":{key} is missing; restore it")
            for key in ("momentum_buffer", "exp_avg", "exp_avg_sq", "step")
        ),
        (
            lambda found: found.update({"embedding.weight:step": torch.ones(2)}),
            "entry embedding.weight:step is not of this model",
        ),
        (
            lambda found: found.update({"embedding.weight:step": torch.tensor(3)}),
            "entry embedding.weight:step is not of this model",
        ),
        (
            lambda found: found["embedding.weight:exp_avg"].fill_(float("nan")),
            "entry embedding.weight:exp_avg has a number that no run comes to",
        ),
        (
            lambda found: found["embedding.weight:exp_avg_sq"].fill_(-1),
            "entry embedding.weight:exp_avg_sq has a number that no run comes to",
        ),
        (lambda found: found.update({"lost.weight:step": torch.ones(1)}), "entry lost.weight:step"),
        (lambda found: found.update({"nothing": torch.ones(1)}), "entry nothing is not of this mo"),
        (
            lambda found: found.update({"embedding.weight:exp_avg": torch.ones(1)}),
            "entry embedding.weight:exp_avg is not of this model",
        ),
    ],
)
def test_an_optimizer_of_another_model_is_refused(
    killed: Path, change: Callable[[dict[str, torch.Tensor]], None], sentence: str
) -> None:
    path = killed / "checkpoint" / "optimizer.safetensors"
    tensors = load_tensors(path)
    change(tensors)
    save_tensors(path, tensors)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        run_training(CONFIG, killed)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[]", "Environment: "),
        ('{"resumed": 3}', "resumed: "),
        ('{"resumed": [1]}', "resumed.0: "),
    ],
)
def test_a_damaged_environment_is_told_by_its_file(
    killed: Path, content: str, sentence: str
) -> None:
    (killed / "environment.json").write_text(content)
    with pytest.raises(ValueError, match=rf"environment\.json: {sentence}.*; restore the file"):
        run_training(CONFIG, killed)


def test_an_evaluation_that_is_null_is_none(killed: Path) -> None:
    path = killed / "metrics.jsonl"
    lines = [
        json.dumps({**json.loads(line), "evaluation": None})
        for line in path.read_text().splitlines()
    ]
    path.write_text("\n".join(lines) + "\n")
    assert run_training(CONFIG, killed) is not None


@pytest.mark.parametrize("content", ["", '{"name": "ti', "{}", '{"step": NaN}'])
def test_a_damaged_summary_is_made_anew_from_the_checkpoint(whole: Path, content: str) -> None:
    summary = RunFolder(whole).summary()
    (whole / "summary.json").write_text(content)
    assert re.search(
        r"summary\.json: .*restore the file: the run is scored again; .* only scoring is left$",
        look_up(CONFIG, whole).sentence,
    )
    assert run_training(CONFIG, whole, report=forbid) == summary
    assert look_up(CONFIG, whole).sentence == f"{whole}: finished already, 6 steps"


def test_a_damaged_summary_without_a_checkpoint_is_told(whole: Path) -> None:
    (whole / "summary.json").write_text("{")
    shutil.rmtree(whole / "checkpoint")
    before = (whole / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"summary\.json: .*or delete .* to train it anew$"):
        run_training(CONFIG, whole)
    assert (whole / "metrics.jsonl").read_bytes() == before


def test_the_previous_checkpoint_stands_in_for_one_that_was_being_put_in_place(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed twice between the two renames of a checkpoint, there is still one."""
    os.replace(whole / "checkpoint", whole / "checkpoint.previous")
    _, model, _ = load_run(whole)
    model, task = build(CONFIG)
    trainer = make_trainer(CONFIG, model, task, RunFolder(whole))
    assert trainer.resume()

    replace = os.replace

    def kill(source: Path, target: Path) -> None:
        if target == whole / "checkpoint":
            raise Killed
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", kill)
        with pytest.raises(Killed):
            checkpoint.save_progress(
                whole / "checkpoint", trainer.model, trainer.optimizers, trainer.progress
            )
    assert look_up(CONFIG, whole).sentence.endswith("finished already, 6 steps")
    again = make_trainer(CONFIG, *build(CONFIG), RunFolder(whole))
    assert again.resume()


def test_an_evaluation_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    model, task = build(CONFIG)
    trainer = make_trainer(CONFIG, model, task, RunFolder(tmp_path / "run"))
    trainer.folder.begin(CONFIG.to_dict(), {})
    step = trainer._step

    def poison() -> tuple[float, float, float]:
        taken = step()
        if trainer.progress.step == CONFIG.train.eval_every:
            with torch.no_grad():
                model.embedding.weight.fill_(torch.nan)
        return taken

    trainer._step = poison
    with pytest.raises(TrainingDiverged, match=r"^validation loss is nan at step 3; the last good"):
        trainer.train()
    assert [line["step"] for line in read_metrics(trainer.folder.path)] == [1, 2, 3]


def test_a_run_of_other_options_is_told_apart(killed: Path) -> None:
    train = dataclasses.replace(CONFIG.train, steps=12, seed=1)
    sentence = (
        f"{killed}: train.steps is 12 here and 6 in the run, train.seed is 1 here and 0 in the "
        "run; use another --out, or the options of the run"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        look_up(dataclasses.replace(CONFIG, train=train), killed)
