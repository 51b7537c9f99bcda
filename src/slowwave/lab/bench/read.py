"""Reading long streams and generating after them, beside models that keep all they have read."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from slowwave.lab.bench import models
from slowwave.lab.bench.measure import Machine, Times, Work, time_in_turn
from slowwave.lab.bench.models import MODEL, draw_tokens, generate, moved_nbytes, read_random
from slowwave.lab.bench.report import Row, Section, timed_row
from slowwave.models.backbone import HybridLM
from slowwave.models.flops import Pass, head_flops, pass_flops
from slowwave.ops.append import reserve
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.objective import Plan
from slowwave.sleep.schedule import cut_stream
from slowwave.sleep.stream import read_stream
from slowwave.state import KeyValues, MemoryState

WINDOW = 512
STREAMS = (1024, 32_768)
CONTEXTS = tuple(1024 * 2**i for i in range(8))
GENERATED = 16
ROUNDS = 5
PASSES = (1, 4)
PEER = "transformers hybrid"
FULL = "full attention"


def run_read(device: torch.device, machine: Machine) -> list[Section]:
    """Streams, tokens generated after them, and both over growing contexts."""
    with torch.inference_mode():
        model = HybridLM(MODEL).eval().to(device)
        full = HybridLM(dataclasses.replace(MODEL, layers=("attn",) * len(MODEL.layers)))
        full = full.eval().to(device)
        notes = [f"windows of {WINDOW} tokens; the peer attends to all that it has read"]
        obstacle, hybrid = models.transformers_obstacle(), None
        if obstacle is None:
            hybrid = models.transformers_hybrid(MODEL, max_tokens=2 * max(STREAMS)).to(device)
        else:
            notes.append(obstacle)
        reading = _time_reading(model, hybrid, machine)
        generation = _time_generation(model, hybrid, machine)
        copied = "the peer's cache is its default one, copied for every round"
        return [
            Section(title="Reading a stream", rows=reading, notes=notes),
            Section(title="Generating a token", rows=generation, notes=[*notes, copied]),
            _time_contexts(model, full),
        ]


def _ours(passes: int) -> str:
    return f"slowwave, N = {passes}"


def _time_reading(model: HybridLM, hybrid: Any, machine: Machine) -> list[Row]:
    rows: list[Row] = []
    for count in STREAMS:
        tokens = draw_tokens(model, count)
        works, flops = {}, {}
        for passes in PASSES:
            sleep = SleepConfig(window=WINDOW, passes=passes)
            works[_ours(passes)] = Work(functools.partial(_read, model, tokens, sleep))
            flops[_ours(passes)] = Plan(sleep, cut_stream(count, sleep), num_scored=1).flops(MODEL)
        if hybrid is not None:
            works[PEER] = Work(functools.partial(hybrid, tokens, use_cache=True, logits_to_keep=1))
            flops[PEER] = pass_flops(MODEL, Pass(count, 0)) + head_flops(MODEL, 1)
        times = time_in_turn(works, rounds=ROUNDS)
        what = f"read {count:,} tokens"
        rows += [
            timed_row(what, by, times, reference=PEER, machine=machine, flops=flops[by])
            for by in times
        ]
    return rows


def _read(model: HybridLM, tokens: Tensor, sleep: SleepConfig) -> Tensor:
    hidden, _ = read_stream(model, tokens, model.initial_state(1), sleep)
    return model.logits(hidden[:, -1])


def _time_generation(model: HybridLM, hybrid: Any, machine: Machine) -> list[Row]:
    rows: list[Row] = []
    for stream in STREAMS:
        # In the middle of a window, so that no sleep is timed.
        context = stream + WINDOW // 2
        works: dict[str, Work] = {}
        moved: dict[str, int | None] = {}
        for passes in PASSES:
            sleep = SleepConfig(window=WINDOW, passes=passes)
            state = read_random(model, sleep, context)
            works[_ours(passes)] = Work(functools.partial(generate, model, state, sleep, GENERATED))
            moved[_ours(passes)] = moved_nbytes(model, state)
        if hybrid is not None:
            tokens = draw_tokens(model, context)
            cache = hybrid(tokens, use_cache=True, logits_to_keep=1).cache
            works[PEER] = Work(
                functools.partial(_generate_with_peer, hybrid, tokens[:, :1]),
                prepare=functools.partial(copy.deepcopy, cache),
            )
            moved[PEER] = None
        times = time_in_turn(works, rounds=4 * ROUNDS)
        rows += [
            timed_row(
                "a token",
                by,
                times,
                reference=PEER,
                calls=GENERATED,
                machine=machine,
                moved_nbytes=moved[by],
                context=context,
            )
            for by in times
        ]
    return rows


def _generate_with_peer(hybrid: Any, token: Tensor, cache: Any) -> None:
    """GENERATED tokens through transformers, without the overhead of its `generate`."""
    for _ in range(GENERATED):
        logits = hybrid(token, cache=cache, use_cache=True).logits
        token = logits[:, -1:].argmax(-1)


def _time_contexts(model: HybridLM, full: HybridLM) -> Section:
    rows: list[Row] = []
    ratios: dict[str, dict[int, float]] = {}
    for context in CONTEXTS:
        for what, count, calls in ((f"the next {WINDOW}", WINDOW, 1), ("a token", 1, GENERATED)):
            times = _time_next(model, full, context, count, calls)
            rows += [
                timed_row(what, by, times, reference=FULL, calls=calls, context=context)
                for by in times
            ]
            for passes in PASSES:
                ratio = times[_ours(passes)].over(times[FULL]).median
                ratios.setdefault(f"{what}, N = {passes}", {})[context] = ratio
    return Section(
        title="Growing contexts",
        rows=rows,
        notes=[
            "full attention: the same sizes, torch's fused kernel, a cache with room to grow; "
            "slowwave sleeps once in every window that it reads on",
            *(f"{what}: faster than full attention {_crossing(r)}" for what, r in ratios.items()),
        ],
    )


def _time_next(
    model: HybridLM, full: HybridLM, context: int, count: int, calls: int
) -> dict[str, Times]:
    """The next `count` tokens, `calls` times over, from a half-full window and after `context`."""
    tokens = draw_tokens(model, count)
    works: dict[str, Work] = {}
    for passes in PASSES:
        sleep = SleepConfig(window=WINDOW, passes=passes)
        state = read_random(model, sleep, WINDOW + WINDOW // 2)
        read = functools.partial(_read_on, model, tokens, sleep, calls)
        works[_ours(passes)] = Work(read, prepare=functools.partial(_with_room, state))
    no_window = SleepConfig(window=2 * context + calls * count + 1, passes=1)
    cache = _fill_cache(full, context)
    works[FULL] = Work(
        functools.partial(_read_on, full, tokens, no_window, calls),
        prepare=functools.partial(_with_room, cache),
    )
    return time_in_turn(works, rounds=ROUNDS)


def _read_on(
    model: HybridLM, tokens: Tensor, sleep: SleepConfig, calls: int, state: MemoryState
) -> None:
    for _ in range(calls):
        hidden, state = read_stream(model, tokens, state, sleep)
        model.logits(hidden[:, -1])


def _with_room(state: MemoryState) -> MemoryState:
    """The state with caches that can grow in place, which is not what is to be timed."""
    grow: Callable[[Tensor], Tensor] = functools.partial(reserve, count=0)
    layers = tuple(layer.map(grow) if layer.per_token else layer for layer in state.layers)
    return dataclasses.replace(
        state,
        layers=layers,
        window_tokens=grow(state.window_tokens),
        window_hidden=grow(state.window_hidden),
    )


def _fill_cache(full: HybridLM, context: int) -> MemoryState:
    """A state with `context` random keys and values; reading takes as long whatever they hold."""
    state = full.initial_state(1)
    shape = (1, context, full.config.kv_heads, full.config.head_dim)
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(shape, generator=generator).to(full.device)
    return dataclasses.replace(
        state,
        layers=tuple(KeyValues(keys, keys) for _ in state.layers),
        window_tokens=torch.zeros(1, context, dtype=torch.int64, device=full.device),
        window_hidden=torch.zeros(1, context, full.config.width, device=full.device),
        tokens_seen=torch.full((1,), context, device=full.device),
    )


def _crossing(ratios: dict[int, float]) -> str:
    """From which context on every ratio is below 1."""
    slower = [context for context, ratio in ratios.items() if ratio >= 1]
    if not slower:
        return f"at all of them, from {min(ratios):,} tokens on"
    later = [context for context in ratios if context > max(slower)]
    return f"from {min(later):,} tokens on" if later else "at none of them"
