"""An adapter learns from what was slept on, and goes on where it stopped."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch

from byte_tokenizer import ByteTokenizer
from slowwave.models.adapter import adapt
from slowwave.models.backbone import HybridLM
from slowwave.runtime.asked import NO_TARGET, encode_asked
from slowwave.runtime.config import PLAIN
from slowwave.runtime.model_folder import TalkingModel
from slowwave.sleep.config import Compact, SleepConfig
from slowwave.storage.checkpoint import load_tensors, save_tensors
from slowwave.training.adapter import (
    compute_loss,
    draw_for,
    pair,
    read_conversation,
    train_adapter,
    validate,
)
from slowwave.training.adapter_config import AdapterConfig
from tiny_models import THREE_LAYERS

CONFIG = AdapterConfig(
    rank=2,
    steps=4,
    lr=0.03,
    warmup_steps=1,
    least_told=1,
    most_told=2,
    most_talk=2,
    validate=1,
    validate_every=2,
)
SLEEP = SleepConfig(window=128, passes=2, consolidator=Compact(ratio=0.25, capacity=1.0))


def make_talker() -> TalkingModel:
    return TalkingModel(HybridLM(THREE_LAYERS, seed=1), ByteTokenizer(), SLEEP, PLAIN)


def test_answers_and_their_end_are_what_is_learned() -> None:
    talker = make_talker()
    conversation = draw_for(CONFIG, "train", 0)
    asked = encode_asked(talker, pair(conversation.questions))
    for question, tokens, targets in zip(conversation.questions, *asked, strict=True):
        learned = bytes(targets[targets != NO_TARGET].tolist()).decode()
        assert learned == f" {question.answer}\nUser:"
        read = bytes(tokens.tolist()).decode()
        assert read.startswith(f"User: {question.text}\nAssistant: {question.answer}\nUser:")


def test_windows_end_between_turns() -> None:
    talker = make_talker()
    conversation = draw_for(dataclasses.replace(CONFIG, most_talk=20), "train", 3)
    state = read_conversation(talker, conversation)
    assert state.counters.num_sleeps > 2
    length = sum(len(f"User: {turn.text}\n") for turn in conversation.turns[::2])
    length += sum(len(f"Assistant: {turn.text}\n") for turn in conversation.turns[1::2])
    assert state.counters.tokens_seen == length


def test_only_the_adapter_learns_and_only_from_answers() -> None:
    talker = make_talker()
    changes = adapt(talker.model, 2, torch.Generator().manual_seed(0))
    loss, anchor = compute_loss(talker, draw_for(CONFIG, "train", 0), CONFIG)
    assert float(anchor.detach()) == pytest.approx(0, abs=1e-6)
    loss.backward()
    assert any(
        bool(change.grad.abs().max() > 0) for change in changes.values() if change.grad is not None
    )
    names = {name for name, each in talker.model.named_parameters() if each.grad is not None}
    assert names <= set(changes)


def test_a_run_goes_on_to_the_bit(tmp_path: Path) -> None:
    train_adapter(make_talker(), CONFIG, tmp_path / "whole")
    for last in (2, 4):
        train_adapter(make_talker(), CONFIG, tmp_path / "parts", last=last)
    one, two = (
        load_tensors(tmp_path / name / "adapter.safetensors") for name in ("whole", "parts")
    )
    assert one.keys() == two.keys()
    assert all(tensor.equal(two[name]) for name, tensor in one.items())
    lines = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "parts")]
    steps = [[json.loads(line)["step"] for line in text.splitlines()] for text in lines]
    assert steps[0] == steps[1] == [0, 1, 1, 2, 3, 3]


def test_it_learns(tmp_path: Path) -> None:
    """Conversations are of one kind, so a few steps make answers likelier that none was about."""
    talker = make_talker()
    config = dataclasses.replace(CONFIG, rank=8, steps=12, validate_every=12)
    adapted = make_talker()
    adapt(adapted.model, 8, torch.Generator().manual_seed(0))
    before = validate(adapted, config).loss
    train_adapter(talker, config, tmp_path)
    assert validate(talker, config).loss < before - 0.5


def test_a_model_without_a_chat_is_refused(tmp_path: Path) -> None:
    talker = make_talker()._replace(chat=None)
    with pytest.raises(ValueError, match="the model has no chat; load it with a template"):
        train_adapter(talker, CONFIG, tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rank": 0}, "adapter.rank is 0; use 1 or more"),
        ({"warmup_steps": 0}, "adapter.warmup_steps is 0; use 1 or more"),
        ({"anchors": -1}, "adapter.anchors is -1; use 0 or more"),
        ({"lr": 0.0}, "adapter.lr is 0.0; use a positive number"),
        ({"least_told": 5, "most_told": 4}, "adapter.most_told is 4 with adapter.least_told 5"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        AdapterConfig.from_dict(change)


def test_a_run_with_another_rank_is_not_gone_on_with(tmp_path: Path) -> None:
    train_adapter(make_talker(), CONFIG, tmp_path, last=2)
    other = dataclasses.replace(CONFIG, rank=3)
    with pytest.raises(ValueError, match=r"go on with the recipe and the model it began with"):
        train_adapter(make_talker(), other, tmp_path)
    tensors = load_tensors(tmp_path / "progress.safetensors")
    del tensors["steps"]
    save_tensors(tmp_path / "progress.safetensors", tensors)
    with pytest.raises(ValueError, match=r"is not whole; restore the file, or name a new OUT"):
        train_adapter(make_talker(), CONFIG, tmp_path)
