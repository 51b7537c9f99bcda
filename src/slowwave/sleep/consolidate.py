"""Sleep itself: passes 2..N over the window's hidden states, then eviction (paper, Algorithm 1)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Sequence
from typing import Any

from torch import Tensor

from slowwave.models.backbone import HybridLM, Run
from slowwave.sleep.config import Recirculate, SleepConfig
from slowwave.state import Band, LayerState, MemoryState

PAPER = SleepConfig()


def consolidate(
    model: HybridLM,
    state: MemoryState,
    *,
    passes: int,
    sleep: SleepConfig = PAPER,
    on_pass: Callable[[int, MemoryState], Any] | None = None,
    run: Run | None = None,
) -> MemoryState:
    """Sleeps on the window in `state` and drops it.

    The read was pass 1. Pass n starts with a zero convolution tail and an attention cache without
    the window, and reads the hidden states that pass n-1 put out; `sleep` says from which fast
    weights, and what stays in the cache. passes, not `sleep.passes`, says how many there are; 1 is
    plain eviction. A prelude stays as pass 1 left it; a coda returns to the window's start and
    reads what the last pass put out. on_pass(n, state) sees the state after each pass, n = 1 for
    the read. run replaces `model.run`, for a compiled or a checkpointed one.

    Raises ValueError if passes < 1, the window is empty, `sleep.eviction` is unfit (none, or all
    after sliding), or the state at the window's start is asked for and was not noted (see
    `open_window`).
    """
    steps = consolidate_by_pass(model, state, passes=passes, sleep=sleep, run=run)
    n = 0
    while True:
        try:
            passed = next(steps)
        except StopIteration as woken:
            return woken.value
        n += 1
        if on_pass is not None:
            on_pass(n, passed)


def consolidate_by_pass(
    model: HybridLM,
    state: MemoryState,
    *,
    passes: int,
    sleep: SleepConfig = PAPER,
    run: Run | None = None,
) -> Generator[MemoryState, None, MemoryState]:
    """As `consolidate`, pass by pass: yields the state after each, and returns that of waking up.

    Whoever stops asking has not slept.
    """
    if passes < 1:
        raise ValueError(f"passes is {passes}; use 1 (plain eviction) or more")
    if state.window_fill == 0:
        raise ValueError("the window is empty, there is nothing to sleep on; read tokens first")
    if sleep.eviction == "none":
        raise ValueError("sleep.eviction is none, which never sleeps; use all or sliding")
    if sleep.eviction == "all" and state.carried is not None:
        raise ValueError(
            f"sleep.eviction is all, but the state carries {state.num_carried} tokens of windows "
            "that were slept on with sliding; go on with sliding"
        )
    run = model.run if run is None else run
    hidden, mask, tokens = state.window_hidden, state.window_mask, state.window_tokens
    looped = model.config.looped_part
    start = slept = state.evict()
    if sleep.between_passes == "reset" and passes > 1:
        start = dataclasses.replace(start, layers=_rewrite(start.layers, _noted_start(state)))
    yield slept
    for n in range(2, passes + 1):
        # One name for both states: the pass's keys and values are freed before the next pass runs.
        read = reread(model, hidden, tokens, sleep.recirculate)
        before = slept if sleep.between_passes == "carry" else start
        evicts = n == passes and not sleep.keeps_last_cache and not model.config.coda
        hidden, slept = run(read, before, mask=mask, evicts=evicts, part=looped)
        if n == passes and model.config.coda:
            begun, evicts = _reopen_coda(model, slept, state), sleep.eviction == "all"
            _, slept = run(hidden, begun, mask=mask, evicts=evicts, part="coda")
        if n < passes or sleep.eviction == "all":
            slept = slept.evict()
        yield slept.evict()
    if sleep.eviction == "sliding":
        layers = state.layers if passes == 1 else _keep_layers(model, state, slept, sleep)
        band = Band(sleep.window, sleep.sinks)
        slept = dataclasses.replace(state, layers=layers).slide(band)
    return slept.after_sleep()


def reread(model: HybridLM, hidden: Tensor, tokens: Tensor, recirculate: Recirculate) -> Tensor:
    """What the next pass reads; section 1.2 of the paper says the raw hidden states.

    Raises ValueError if it should read embeddings, but a prelude has read them.
    """
    if model.config.prelude and recirculate in ("normed+embedding", "embedding"):
        raise ValueError(
            f"sleep.recirculate is {recirculate} with model.prelude {model.config.prelude}, and "
            "looped blocks after a prelude read no embeddings; use hidden or normed"
        )
    match recirculate:
        case "hidden":
            return hidden
        case "normed":
            return model.final_norm(hidden)
        case "normed+embedding":
            return model.final_norm(hidden) + model.embed(tokens)
        case "embedding":
            return model.embed(tokens)


def _noted_start(read: MemoryState) -> tuple[LayerState | None, ...]:
    """The recurrent layers as they were when the window opened."""
    if not read.window_start:
        raise ValueError(
            "the window was read without noting the state it began with, to which a coda and "
            "sleep.between_passes reset return; read it with read_stream, unroll or read_awake"
        )
    return read.window_start


def _reopen_coda(model: HybridLM, slept: MemoryState, read: MemoryState) -> MemoryState:
    """The coda as it was when the window opened, its convolution tails included."""
    layers = list(slept.layers)
    for i in model.config.span("coda"):
        layers[i] = _noted_start(read)[i] or layers[i]
    return dataclasses.replace(slept, layers=tuple(layers))


def _keep_layers(
    model: HybridLM, read: MemoryState, slept: MemoryState, sleep: SleepConfig
) -> tuple[LayerState, ...]:
    """What sliding eviction keeps of the states after pass 1 and after the last one.

    Pass 1 is the one whose convolution tails go on; the coda's are those of its only reading.
    """
    layers = list(read.layers)
    for i in range(model.config.prelude, len(layers)):
        old, new = read.layers[i], slept.layers[i]
        if old.per_token:
            layers[i] = new if sleep.keeps_last_cache else old
        elif i in model.config.span("coda"):
            layers[i] = new
        else:
            layers[i] = old.with_midterm(new)
    return tuple(layers)


def _rewrite(
    layers: tuple[LayerState, ...], others: Sequence[LayerState | None]
) -> tuple[LayerState, ...]:
    """The layers with the fast weights of others."""
    return tuple(
        layer if other is None else layer.with_midterm(other)
        for layer, other in zip(layers, others, strict=True)
    )
