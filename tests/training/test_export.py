"""A trained run becomes a model to talk to, which says what the run learned to say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

import slowwave
from slowwave import cli
from slowwave.experiment import ExperimentConfig, export_run, run_training
from slowwave.models.config import ModelConfig
from slowwave.sleep.config import SleepConfig
from slowwave.storage.checkpoint import load_tensors
from slowwave.tasks.conversation import ConversationConfig
from slowwave.tasks.rule110 import Rule110Config
from slowwave.tasks.text import TextConfig
from slowwave.training.config import TrainConfig

TINY = ExperimentConfig(
    name="tiny",
    task=ConversationConfig(window=32, windows=4, questions=2),
    model=ModelConfig(width=16, mlp_hidden=32, attn_heads=2, delta_heads=2, key_dim=8, value_dim=8),
    sleep=SleepConfig(window=32, passes=2, loss_windows="sleep_after"),
    train=TrainConfig(steps=1, batch_size=2, eval_examples=2, precision="bfloat16"),
)


@pytest.fixture(autouse=True)
def _few_test_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slowwave.experiment.TEST_EXAMPLES", 2)


def test_an_exported_run_talks_in_its_own_window(tmp_path: Path) -> None:
    run_training(TINY, tmp_path / "run")
    cli.main(["export", str(tmp_path / "run"), str(tmp_path / "model")])
    talker = slowwave.load(tmp_path / "model")
    trained = load_tensors(tmp_path / "run" / "checkpoint" / "model.safetensors")
    assert all(
        torch.equal(tensor, trained[name]) for name, tensor in talker.model.state_dict().items()
    )
    assert (talker.sleep, talker.chat is not None) == (TINY.sleep, True)
    session = talker.session()
    session.generate("I live in Lisbon.", max_new_tokens=20)
    assert session.state.counters.tokens_seen > 20
    assert session.state.counters.num_sleeps == session.state.counters.tokens_seen // 32


def test_a_run_on_text_files_goes_on_with_any_text(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("Once upon a time. " * 200)
    task = TextConfig(files=(str(tmp_path / "text"),), window=32, context=64, piece=80)
    run_training(dataclasses.replace(TINY, task=task), tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "model")
    assert slowwave.load(tmp_path / "model").chat is None


def test_a_run_without_text_is_refused(tmp_path: Path) -> None:
    config = dataclasses.replace(
        TINY, task=Rule110Config(width=6, num_states=2), sleep=SleepConfig(window=6)
    )
    run_training(config, tmp_path / "run")
    with pytest.raises(ValueError, match="was trained on rule110, which is no text"):
        export_run(tmp_path / "run", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    run_training(TINY, tmp_path / "run")
    (tmp_path / "model").mkdir()
    with pytest.raises(ValueError, match="is there already"):
        export_run(tmp_path / "run", tmp_path / "model")
    assert not any((tmp_path / "model").iterdir())
