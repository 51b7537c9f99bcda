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
from slowwave.runtime.asked import encode_asked
from slowwave.runtime.config import PLAIN
from slowwave.runtime.model_folder import TalkingModel
from slowwave.sleep.config import Compact, SleepConfig
from slowwave.sleep.schedule import NO_LOSS
from slowwave.storage.checkpoint import load_tensors, save_tensors
from slowwave.tasks.introductions.conversation import Conversation
from slowwave.training.adapter import (
    compute_divergence,
    compute_loss,
    draw_for,
    pair,
    read_conversation,
    train_adapter,
    validate,
)
from slowwave.training.adapter_config import AdapterConfig
from slowwave.training.small_talk import (
    cut_reply,
    draw_requests,
    provide_small_talk,
    write_replies,
)
from tiny_models import THREE_LAYERS

CONFIG = AdapterConfig(
    rank=2,
    steps=4,
    lr=0.03,
    warmup_steps=1,
    least_told=1,
    most_told=2,
    most_talk=2,
    small_talk=3,
    anchors=2,
    validate=1,
    validate_every=2,
)
TALK = [("How are you?", "Very well."), ("What is snow?", "Frozen water.")]
SLEEP = SleepConfig(window=128, passes=2, consolidator=Compact(ratio=0.25, capacity=1.0))


def make_talker() -> TalkingModel:
    return TalkingModel(HybridLM(THREE_LAYERS, seed=1), ByteTokenizer(), SLEEP, PLAIN)


def test_answers_and_their_end_are_what_is_learned() -> None:
    talker = make_talker()
    conversation = draw_for(CONFIG, TALK, "train", 0)
    asked = encode_asked(talker, pair(conversation.questions))
    for question, tokens, targets in zip(conversation.questions, *asked, strict=True):
        learned = bytes(targets[targets != NO_LOSS].tolist()).decode()
        assert learned == f" {question.answer}\nUser:"
        read = bytes(tokens.tolist()).decode()
        assert read.startswith(f"User: {question.text}\nAssistant: {question.answer}\nUser:")


def test_windows_end_between_turns() -> None:
    talker = make_talker()
    conversation = draw_for(dataclasses.replace(CONFIG, most_talk=20), TALK, "train", 3)
    state = read_conversation(talker, conversation)
    assert state.counters.num_sleeps > 2
    length = sum(len(f"User: {turn.text}\n") for turn in conversation.turns[::2])
    length += sum(len(f"Assistant: {turn.text}\n") for turn in conversation.turns[1::2])
    assert state.counters.tokens_seen == length


def test_only_the_adapter_learns_and_only_from_answers() -> None:
    talker = make_talker()
    changes = adapt(talker.model, 2, torch.Generator().manual_seed(0))
    loss, _ = compute_loss(talker, draw_for(CONFIG, TALK, "train", 0), TALK)
    loss.backward()
    assert any(
        bool(change.grad.abs().max() > 0) for change in changes.values() if change.grad is not None
    )
    names = {name for name, each in talker.model.named_parameters() if each.grad is not None}
    assert names <= set(changes)


@torch.no_grad()
def test_small_talk_is_held_to_a_model_without_adapter_and_memory() -> None:
    talker = make_talker()
    changes = adapt(talker.model, 2, torch.Generator().manual_seed(0))
    nothing = read_conversation(talker, Conversation([], []))
    told = read_conversation(talker, draw_for(CONFIG, TALK, "train", 0))
    assert float(compute_divergence(talker, nothing, TALK)) == pytest.approx(0, abs=1e-6)
    assert float(compute_divergence(talker, told, TALK)) > 1e-4
    for change in changes.values():
        change.add_(0.1)
    assert float(compute_divergence(talker, nothing, TALK)) > 1e-4


@torch.no_grad()
def test_replies_to_small_talk_are_the_models_own(tmp_path: Path) -> None:
    """Written many at a time they are those that each request has alone, and are written once."""
    talker = make_talker()
    requests = draw_requests(3)
    together = write_replies(talker, requests)
    assert together == [write_replies(talker, [request])[0] for request in requests]
    assert len({*requests}) == 3
    train, validation = provide_small_talk(talker, 3, tmp_path)
    assert [*validation, *train] == [*zip(requests, together, strict=True)]
    written = (tmp_path / "small_talk.json").read_text()
    (tmp_path / "small_talk.json").write_text(written.replace(json.dumps(together[0]), '"Kept."'))
    assert provide_small_talk(talker, 3, tmp_path).validation == [(requests[0], "Kept.")]
    assert len(provide_small_talk(talker, 2, tmp_path).train) == 1


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("One. Two! Three and", "One. Two!"),
        ("It is 3.5 km", "It is 3.5 km"),
        (" First line\nSecond.", "First line"),
        ("\n", "I see."),
    ],
)
def test_replies_end_with_a_sentence(text: str, reply: str) -> None:
    assert cut_reply(text) == reply


@pytest.mark.parametrize("count", [1, 10_000])
def test_more_small_talk_than_there_is_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=rf"adapter.small_talk is {count}; use 2 to \d+"):
        draw_requests(count)


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
    before = validate(adapted, config, TALK).loss
    train_adapter(talker, config, tmp_path)
    assert validate(talker, config, TALK).loss < before - 0.5


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
