"""Trains an adapter with which a pretrained model recalls what it slept on.

Each step draws a conversation, reads it window by window without gradients, sleeping on each, and
asks about it. Gradients go through questions and answers alone (the context's keys and values are
constants), so that a step costs little more than a reading. Small talk is to be replied to as the
untrained model does that has nothing in memory, which holds the rest of what it says in place.
"""

from __future__ import annotations

import contextlib
import math
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from slowwave.models.adapter import AdaptedLinear, adapt
from slowwave.models.backbone import HybridLM
from slowwave.runtime.asked import (
    encode_asked,
    encode_message,
    measure_divergence,
    predict_answers,
)
from slowwave.runtime.model_folder import TalkingModel
from slowwave.runtime.reply import hash_seed
from slowwave.sleep.awake import read_awake
from slowwave.sleep.consolidate import consolidate
from slowwave.state import MemoryState
from slowwave.storage.checkpoint import load_tensors, save_tensors
from slowwave.storage.json_files import dump_lines, parse_lines
from slowwave.tasks.introductions.conversation import (
    Conversation,
    Exchange,
    Question,
    draw_conversation,
)
from slowwave.training.adapter_config import AdapterConfig
from slowwave.training.precision import narrow_products
from slowwave.training.small_talk import provide_small_talk

METRICS = "metrics.jsonl"
HELD = ("exp_avg", "exp_avg_sq", "step")


class Score(NamedTuple):
    """Mean loss of answers, divergence of small talk, and shares of questions whose answer is the
    likeliest, by kind."""

    loss: float
    anchor: float
    right: dict[str, float]


def train_adapter(
    talker: TalkingModel, config: AdapterConfig, folder: Path, *, last: int | None = None
) -> None:
    """Trains, or goes on, in a folder: adapter.safetensors, progress.safetensors, metrics.jsonl,
    small_talk.json.

    The model is changed in place. last: the step after which to stop for now. Raises ValueError if
    the talker has no chat.
    """
    if talker.chat is None:
        raise ValueError("the model has no chat; load it with a template or a plain transcript")
    folder.mkdir(parents=True, exist_ok=True)
    small_talk = provide_small_talk(talker, config.small_talk, folder)
    generator = torch.Generator().manual_seed(hash_seed("weights", config.seed))
    changes = adapt(talker.model, config.rank, generator)
    optimizer = torch.optim.AdamW(changes.values(), lr=config.lr, betas=(0.9, 0.95))
    begun = _load_progress(folder, changes, optimizer)
    _forget_lines(folder, begun)
    for step in range(begun, config.steps if last is None else last):
        began = time.perf_counter()
        _set_rate(optimizer, step, config)
        conversation = draw_for(config, small_talk.train, "train", step)
        anchors = _draw_anchors(config, small_talk.train, "train", step)
        loss, anchor = compute_loss(talker, conversation, anchors)
        (loss + config.anchor_weight * anchor).backward()
        norm = torch.nn.utils.clip_grad_norm_(changes.values(), config.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        measured = {"loss": loss, "anchor": anchor, "norm": norm}
        line = {name: float(each.detach()) for name, each in measured.items()}
        _log(folder, {"step": step, **line, "seconds": time.perf_counter() - began})
        if (step + 1) % config.validate_every == 0 or step + 1 == config.steps:
            _log(
                folder, {"step": step, **validate(talker, config, small_talk.validation)._asdict()}
            )
            _save_progress(folder, changes, optimizer, step + 1)


def draw_for(
    config: AdapterConfig, small_talk: Sequence[Exchange], split: str, index: int
) -> Conversation:
    """The conversation at a place of a split; no two splits draw alike."""
    generator = random.Random(hash_seed(split, config.seed, index))
    return draw_conversation(
        generator,
        told=generator.randint(config.least_told, config.most_told),
        talk=generator.choices(small_talk, k=generator.randint(0, config.most_talk)),
        unknown=config.unknown,
        noted=config.noted,
        repeats=config.repeats,
    )


def _draw_anchors(
    config: AdapterConfig, small_talk: Sequence[Exchange], split: str, index: int
) -> list[Exchange]:
    generator = random.Random(hash_seed("anchors", split, config.seed, index))
    return generator.choices(small_talk, k=config.anchors)


def read_conversation(talker: TalkingModel, conversation: Conversation) -> MemoryState:
    """The state after a conversation, whose windows end between turns as far as they can."""
    model, sleep = talker.model, talker.sleep
    state = model.initial_state(1)
    for tokens in _fill_windows(talker, conversation):
        if state.window_fill:
            state = consolidate(model, state, passes=sleep.passes, sleep=sleep)
        ids = torch.tensor([tokens], device=model.device)
        _, state = read_awake(model, ids, state, sleep)
    return state


def compute_loss(
    talker: TalkingModel, conversation: Conversation, anchors: Sequence[Exchange]
) -> tuple[Tensor, Tensor]:
    """Mean loss of the answers to a conversation's questions, and divergence of replies to small
    talk after it, a token of a reply each, from the model without adapter and without memory."""
    with torch.no_grad(), narrow_products(talker.model.device):
        state = read_conversation(talker, conversation)
    asked = encode_asked(talker, pair(conversation.questions))
    loss = F.cross_entropy(*predict_answers(talker, state, asked))
    return loss, compute_divergence(talker, state, anchors) if anchors else torch.zeros_like(loss)


def compute_divergence(
    talker: TalkingModel, state: MemoryState, small_talk: Sequence[Exchange]
) -> Tensor:
    """See `compute_loss`."""
    asked = encode_asked(talker, small_talk)
    with torch.no_grad(), without_adapter(talker.model):
        nothing = read_conversation(talker, Conversation([], []))
        expected, _ = predict_answers(talker, nothing, asked)
    found, _ = predict_answers(talker, state, asked)
    return measure_divergence(found, expected)


def pair(questions: Sequence[Question]) -> list[tuple[str, str]]:
    """Questions with their answers."""
    return [(question.text, question.answer) for question in questions]


@torch.no_grad()
def validate(talker: TalkingModel, config: AdapterConfig, small_talk: Sequence[Exchange]) -> Score:
    """Scores conversations, and small talk, that no step trains on."""
    losses, divergences = list[float](), list[float]()
    right: dict[str, list[bool]] = {}
    for index in range(config.validate):
        conversation = draw_for(config, small_talk, "validation", index)
        with narrow_products(talker.model.device):
            state = read_conversation(talker, conversation)
        asked = encode_asked(talker, pair(conversation.questions))
        logits, targets = predict_answers(talker, state, asked)
        losses.append(float(F.cross_entropy(logits, targets)))
        hits = (logits.argmax(-1) == targets).split(asked.num_targets)
        for question, hit in zip(conversation.questions, hits, strict=True):
            right.setdefault(question.kind, []).append(bool(hit.all()))
        divergences.append(float(compute_divergence(talker, state, small_talk)))
    shares = {kind: sum(each) / len(each) for kind, each in sorted(right.items())}
    return Score(statistics.fmean(losses), statistics.fmean(divergences), shares)


@contextlib.contextmanager
def without_adapter(model: HybridLM) -> Iterator[None]:
    """The model computes as it did before it was adapted."""
    adapted = [module for module in model.modules() if isinstance(module, AdaptedLinear)]
    for module in adapted:
        module.is_on = False
    try:
        yield
    finally:
        for module in adapted:
            module.is_on = True


def _fill_windows(talker: TalkingModel, conversation: Conversation) -> Iterator[list[int]]:
    """The tokens of a conversation, window by window; a window ends where a turn would not fit."""
    most = talker.sleep.window - 1
    window = talker.begin("user")
    for turn in conversation.turns:
        tokens = encode_message(talker, turn.role, turn.text)
        if len(window) + len(tokens) > most:
            yield window
            window = []
        window += tokens[:most]
    if window:
        yield window


def _set_rate(optimizer: torch.optim.Optimizer, step: int, config: AdapterConfig) -> None:
    warm = min(1.0, (step + 1) / config.warmup_steps)
    falling = 0.55 + 0.45 * math.cos(math.pi * step / config.steps)
    for group in optimizer.param_groups:
        group["lr"] = config.lr * warm * falling


def _log(folder: Path, line: dict[str, Any]) -> None:
    with (folder / METRICS).open("ab") as file:
        file.write(dump_lines([line]))


def _forget_lines(folder: Path, step: int) -> None:
    """Drops what was logged from a step on, which is trained again."""
    path = folder / METRICS
    if path.exists():
        lines = parse_lines(path.read_bytes(), path, drop_cut=True)
        path.write_bytes(dump_lines([line for line in lines if line["step"] < step]))


def _save_progress(
    folder: Path,
    changes: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    step: int,
) -> None:
    tensors = {name: change.detach() for name, change in changes.items()}
    held = {
        f"{name}:{key}": torch.as_tensor(optimizer.state[change][key])
        for name, change in changes.items()
        for key in HELD
    }
    save_tensors(folder / "progress.safetensors", tensors | held | {"steps": torch.tensor(step)})
    save_tensors(
        folder / "adapter.safetensors", {name: each.bfloat16() for name, each in tensors.items()}
    )


def _load_progress(
    folder: Path, changes: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> int:
    """Steps that were trained already."""
    path = folder / "progress.safetensors"
    if not path.exists():
        return 0
    tensors = load_tensors(path)
    for name, change in changes.items():
        keys = (name, *(f"{name}:{key}" for key in HELD))
        if any(key not in tensors for key in (*keys, "steps")):
            raise ValueError(f"{path}: {name} is not whole; restore the file, or name a new OUT")
        if any(tensors[key].shape != change.shape for key in keys[:3]):
            raise ValueError(
                f"{path}: {name} has shape {tuple(tensors[name].shape)}, the recipe makes it "
                f"{tuple(change.shape)}; go on with the recipe and the model it began with"
            )
    with torch.no_grad():
        for name, change in changes.items():
            change.copy_(tensors[name])
            optimizer.state[change] = {key: tensors[f"{name}:{key}"] for key in HELD}
    return int(tensors["steps"])
