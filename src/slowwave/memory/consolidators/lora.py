"""A dream: what users told is learned as a low-rank delta, and taken whole or not at all.

The ledger is replayed as questions and answers, mixed with small talk whose replies are held, into
changes that begin at zero each time: nothing is stacked, so what is forgotten is gone with the next
dream. The entry of a dream says how it was made, and a replay of the ledger dreams it again.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from slowwave.delta import LowRankDelta
from slowwave.memory.config import DreamConfig, GateConfig
from slowwave.memory.consolidators.anchors import HELD_OUT, TRAINED, find_small_talk
from slowwave.memory.consolidators.dreams import (
    Dream,
    ask_by_model,
    ask_by_template,
    count_reasons,
    find_statements,
    fits,
    measure_pairs,
    sift,
)
from slowwave.memory.gate import judge, measure
from slowwave.memory.ledger import DREAM, Entry
from slowwave.memory.sleep_report import DreamReport, Measures, Refusals, SleepReport, Verdict
from slowwave.memory.turn import Progress, Steps, time_steps
from slowwave.models.int8 import Int8Weight
from slowwave.runtime.asked import encode_asked, measure_divergence, predict_answers
from slowwave.runtime.model_folder import TalkingModel
from slowwave.runtime.reply import hash_seed
from slowwave.sleep.stream import read_stream
from slowwave.state import MemoryState
from slowwave.storage.json_files import parse_json

WARM_UP_STEPS = 10
ANCHORS = GateConfig(held_out=HELD_OUT)


class NothingToDream(ValueError):
    """The ledger tells too little, or the critic refuses all of it."""


class Dreamt(NamedTuple):
    """The state to go on with, what happened, and how it was made."""

    state: MemoryState
    report: SleepReport
    config: DreamConfig


class Trained(NamedTuple):
    """A delta, the steps that it took, and why there were no more."""

    delta: LowRankDelta
    steps: int
    ended_by: Literal["enough", "steps", "seconds"]


def enter_dream(config: DreamConfig) -> Entry:
    """What a dream is in a ledger."""
    text = json.dumps(config.to_dict(), sort_keys=True)
    return Entry(kind="sleep", time=time.time(), source=DREAM, text=text)


def dream_entry(
    talker: TalkingModel,
    state: MemoryState,
    entry: Entry,
    ledger: Sequence[Entry],
    gate: GateConfig | None,
) -> Steps[tuple[MemoryState, SleepReport, Entry]]:
    """As `dream_by_step`, of an entry; returns state, report, and the entry as it was done."""
    try:
        config = DreamConfig.from_dict(parse_json(entry.text))
    except (ValueError, TypeError) as error:
        raise ValueError(f"the settings of a dream are unfit: {error!s:.200}") from None
    dreamt = yield from dream_by_step(talker, state, ledger, config, gate=gate)
    yield dreamt.report
    done = dataclasses.replace(enter_dream(dreamt.config), time=entry.time)
    return dreamt.state, dreamt.report, done


def dream_by_step(
    talker: TalkingModel,
    state: MemoryState,
    ledger: Sequence[Entry],
    config: DreamConfig,
    *,
    gate: GateConfig | None = None,
) -> Steps[Dreamt]:
    """Learns what users told in a ledger, in steps of an optimizer's step, or a measurement, each.

    state: at the ledger's end; rejected, it is what goes on, as it was. gate: judges beside the
    rules of the config. The model's weights stay as they are.

    Raises NothingToDream if there are too few statements or the critic lets none through,
    ValueError if the model has no chat or computes no gradients.
    """
    steps = _dream(talker, state, ledger, config, gate)
    dreamt, seconds = yield from time_steps(steps)
    verdict = dreamt.report.verdict
    assert verdict is not None
    milliseconds = 1000 * seconds - verdict.milliseconds
    return dreamt._replace(report=dataclasses.replace(dreamt.report, milliseconds=milliseconds))


def _dream(
    talker: TalkingModel,
    state: MemoryState,
    ledger: Sequence[Entry],
    config: DreamConfig,
    gate: GateConfig | None,
) -> Steps[Dreamt]:
    _require_learner(talker)
    fresh = begin_afresh(talker)
    num_statements, dreams = yield from _gather(talker, fresh, ledger, config)
    kept, refused = sift(talker, fresh, ledger, dreams, config)
    reasons = count_reasons(refused)
    if not kept:
        listed = "; ".join(f"{reason} ({count})" for reason, count in reasons.items())
        raise NothingToDream(f"the critic refused all dreams: {listed}. Nothing was changed")
    yield Progress("sleep")
    trained = yield from train(talker, fresh, kept, find_small_talk(ledger), config)
    dreamt = dataclasses.replace(state, delta=trained.delta)
    with_delta = dataclasses.replace(fresh, delta=trained.delta)
    tried = yield from _try(talker, kept, fresh, with_delta)
    judging = _judge(talker, tried, config, gate, refused=state, accepted=dreamt)
    verdict, seconds = yield from time_steps(judging)
    after = state if verdict.outcome == "rejected" else dreamt
    report = SleepReport(
        trigger="dream",
        number=state.counters.num_sleeps + 1,
        tokens=0,
        passes=1,
        milliseconds=0.0,
        bytes_before=state.nbytes,
        bytes_after=after.nbytes,
        changes=(),
        verdict=dataclasses.replace(verdict, milliseconds=1000 * seconds),
        consolidator="lora",
        entries=after.num_entries,
        dream=DreamReport(
            statements=num_statements,
            replayed=len(kept),
            refused=tuple(Refusals(reason=why, count=n) for why, n in reasons.items()),
            steps=trained.steps,
            ended_by=trained.ended_by,
            rank=config.rank,
            nll=tried.nll,
            right=tried.right,
            anchor_mean=tried.mean,
            anchor_median=tried.median,
        ),
    )
    if trained.ended_by == "seconds":
        config = dataclasses.replace(config, steps=trained.steps, seconds=None)
    return Dreamt(after, report, config)


def _require_learner(talker: TalkingModel) -> None:
    if talker.chat is None:
        raise ValueError("the model has no chat, so no user tells it anything; load one that has")
    if any(isinstance(module, Int8Weight) for module in talker.model.modules()):
        raise ValueError("a model with int8 weights computes no gradients; load it in float32")


@torch.no_grad()
def begin_afresh(talker: TalkingModel) -> MemoryState:
    """The state of a stream that was told nothing but what its model expects first."""
    with torch.inference_mode(False):
        state, begin = talker.model.initial_state(1), talker.begin("user")
        if begin:
            tokens = torch.tensor([begin], device=talker.model.device)
            _, state = read_stream(talker.model, tokens, state, talker.sleep)
        return state


def _gather(
    talker: TalkingModel, fresh: MemoryState, ledger: Sequence[Entry], config: DreamConfig
) -> Steps[tuple[int, list[Dream]]]:
    """The number of statements in a ledger, and what may be asked about them."""
    statements = find_statements(ledger)
    if len(statements) < config.least_statements:
        raise NothingToDream(
            f"the ledger has {len(statements)} statements of its user, and dream.least_statements "
            f"is {config.least_statements}; tell more first. Nothing was changed"
        )
    dreams = list[Dream]()
    for statement in statements:
        dreams += ask_by_template(statement)
        if config.by_model:
            dreams += ask_by_model(talker, fresh, statement)
            yield Progress("sleep")
    return len(statements), dreams


def train(
    talker: TalkingModel,
    fresh: MemoryState,
    dreams: Sequence[Dream],
    small_talk: Sequence[tuple[str, str]],
    config: DreamConfig,
) -> Steps[Trained]:
    """Learns the answers of dreams, from nothing, while replies of small talk are held.

    fresh: of a stream that was told nothing. small_talk: beside what is built in.
    """
    generator = torch.Generator().manual_seed(hash_seed("dream", config.seed))
    with torch.inference_mode(False):
        delta = talker.model.initial_delta(1, config.rank).draw(generator)
        learned = [tensor.requires_grad_() for tensor in delta.tensors().values()]
    optimizer = torch.optim.AdamW(learned, lr=config.lr)
    pairs = [(dream.question, dream.answer) for dream in dreams]
    anchors = [each for each in (*TRAINED, *small_talk) if fits(talker, each)]
    order, losses, seconds, step = list[int](), list[float](), 0.0, 0
    ended_by: Literal["enough", "steps", "seconds"] = "steps"
    while step < config.steps:
        if not order:
            if losses and sum(losses) / len(losses) <= config.enough:
                ended_by = "enough"
                break
            order, losses = torch.randperm(len(pairs), generator=generator).tolist(), []
        chosen = [pairs[i] for i in order[: config.batch]]
        order = order[config.batch :]
        drawn = torch.randperm(len(anchors), generator=generator)[: config.anchors].tolist()
        began = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = config.lr * min(1.0, (step + 1) / WARM_UP_STEPS)
        with torch.inference_mode(False), torch.enable_grad():
            held = [anchors[i] for i in drawn]
            answers, divergence = _compute_loss(talker, fresh, delta, chosen, held)
            loss = answers + config.anchor_weight * divergence
            loss.backward(inputs=learned)
            optimizer.step()
        optimizer.zero_grad()
        losses.append(float(answers.detach()))
        step += 1
        seconds += time.perf_counter() - began
        if config.seconds is not None and seconds >= config.seconds and step < config.steps:
            ended_by = "seconds"
            break
        yield Progress("sleep")
    return Trained(delta.map(lambda tensor: tensor.detach()), step, ended_by)


def _compute_loss(
    talker: TalkingModel,
    fresh: MemoryState,
    delta: LowRankDelta,
    pairs: Sequence[tuple[str, str]],
    anchors: Sequence[tuple[str, str]],
) -> tuple[Tensor, Tensor]:
    """Mean loss of the answers, and divergence of the anchors' replies from those without it."""
    dreaming = dataclasses.replace(fresh, delta=delta)
    answers = F.cross_entropy(*predict_answers(talker, dreaming, encode_asked(talker, pairs)))
    if not anchors:
        return answers, torch.zeros_like(answers)
    held = encode_asked(talker, anchors)
    with torch.no_grad():
        expected, _ = predict_answers(talker, fresh, held)
    found, _ = predict_answers(talker, dreaming, held)
    return answers, measure_divergence(found, expected)


class Tried(NamedTuple):
    """What is known without any delta and with the new one: mean NLL of the answers and how many
    are the likeliest, and of held-out text mean and median NLL; with all that was measured."""

    nll: tuple[float, float]
    right: tuple[int, int]
    mean: tuple[float, float]
    median: tuple[float, float]
    anchors: tuple[Measures, Measures | None]


def _try(
    talker: TalkingModel, dreams: Sequence[Dream], fresh: MemoryState, dreaming: MemoryState
) -> Steps[Tried]:
    pairs = [(dream.question, dream.answer) for dream in dreams]
    nll, right, measures = list[float](), list[int](), list[Measures]()
    for state in (fresh, dreaming):
        known = measure_pairs(talker, state, pairs)
        nll.append(_bound(sum(each.nll for each in known) / len(known)))
        right.append(sum(each.is_right for each in known))
        yield Progress("sleep")
        room = talker.sleep.window - state.window_fill
        measures.append((yield from measure(talker, ANCHORS, state, room=room)))
    mean = [_bound(each.mean_nll) for each in measures]
    median = [_bound(each.median_nll) for each in measures]
    assert dreaming.delta is not None
    return Tried(
        nll=(nll[0], nll[1]),
        right=(right[0], right[1]),
        mean=(mean[0], mean[1]),
        median=(median[0], median[1]),
        anchors=(measures[0], measures[1] if dreaming.delta.is_finite else None),
    )


def _bound(nll: float | None) -> float:
    """No JSON holds NaN or infinity; where a dream fits into the window, text was measured."""
    assert nll is not None
    return nll if math.isfinite(nll) else sys.float_info.max


def _judge(
    talker: TalkingModel,
    tried: Tried,
    config: DreamConfig,
    gate: GateConfig | None,
    *,
    refused: MemoryState,
    accepted: MemoryState,
) -> Steps[Verdict]:
    """By the rules of the config, and by the session's gate if there is one."""
    before, after = tried.anchors
    if after is None:
        reason = "the dream left NaN or infinity in the delta"
        return Verdict(outcome="rejected", refused=before, reasons=(reason,))
    reasons = list[str]()
    if not tried.nll[1] < tried.nll[0]:
        reasons.append(
            f"the NLL of the answers is {tried.nll[0]:.4f} without the dream and "
            f"{tried.nll[1]:.4f} with it: nothing was learned"
        )
    for name, (plain, changed) in (("mean", tried.mean), ("median", tried.median)):
        if not changed <= plain * (1 + config.max_anchor_rise):
            reasons.append(
                f"the {name} NLL of held-out text is {plain:.4f} without the dream and "
                f"{changed:.4f} with it, and dream.max_anchor_rise is {config.max_anchor_rise}"
            )
    if gate is None or reasons:
        outcome = "rejected" if reasons else "accepted"
        return Verdict(outcome=outcome, refused=before, accepted=after, reasons=tuple(reasons))
    verdict = yield from judge(talker, gate, refused=refused, accepted=accepted)
    if verdict.outcome == "accepted_unmeasured":
        return dataclasses.replace(verdict, outcome="accepted")  # by the rules of the config
    return verdict
