"""Sleep itself: passes 2..N over the window's hidden states, then eviction (paper, Algorithm 1)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from slowwave.model.hybrid import HybridLM, Run
from slowwave.sleep.config import Recirculate, SleepConfig
from slowwave.state import AttentionState, Band, DeltaState, LayerState, MemoryState

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
    weights, and what stays in the cache (its own window and passes do not cut anything here).
    passes=1 is plain eviction. on_pass(n, state) sees the state after each pass, n = 1 for the
    read. run replaces `model.run`, for a compiled or a checkpointed one.

    Raises ValueError if passes < 1, the window is empty, nothing may be evicted, or the fast
    weights at the window's start are asked for and were not kept (see `open_window`).
    """
    if passes < 1:
        raise ValueError(f"passes is {passes}; use 1 (plain eviction) or more")
    if state.window_fill == 0:
        raise ValueError("the window is empty, there is nothing to sleep on; read tokens first")
    if sleep.eviction == "none":
        raise ValueError("sleep.eviction is none, which never sleeps; use all or sliding")
    run = model.run if run is None else run
    hidden, mask, tokens = state.window_hidden, state.window_mask, state.window_tokens
    start = slept = state.evict()
    if sleep.between_passes == "reset" and passes > 1:
        start = _return_to_start(start, state.window_start)
    if on_pass is not None:
        on_pass(1, slept)
    for n in range(2, passes + 1):
        # One name for both states: the pass's keys and values are freed before the next pass runs.
        read = reread(model, hidden, tokens, sleep.recirculate)
        before = slept if sleep.between_passes == "carry" else start
        evicts = n == passes and not sleep.keeps_last_cache
        hidden, slept = run(read, before, mask=mask, evicts=evicts)
        if n < passes or evicts:
            slept = slept.evict()
        if on_pass is not None:
            on_pass(n, slept.evict())
    if sleep.eviction == "sliding":
        cached = slept if passes > 1 and sleep.keeps_last_cache else state
        slept = _slide(state, cached, slept, sleep)
    return dataclasses.replace(slept, num_sleeps=state.num_sleeps + 1)


def reread(model: HybridLM, hidden: Tensor, tokens: Tensor, recirculate: Recirculate) -> Tensor:
    """What the next pass reads; section 1.2 of the paper says the raw hidden states."""
    match recirculate:
        case "hidden":
            return hidden
        case "normed":
            return model.final_norm(hidden)
        case "normed+embedding":
            return model.final_norm(hidden) + model.embed(tokens)
        case "embedding":
            return model.embed(tokens)


def _return_to_start(
    evicted: MemoryState, window_start: tuple[DeltaState | None, ...]
) -> MemoryState:
    """The evicted state with the fast weights that its window began with."""
    if not window_start:
        raise ValueError(
            "sleep.between_passes is reset, but the window was read without noting the fast "
            "weights it began with; read it with read_stream, unroll or open_window"
        )
    return dataclasses.replace(evicted, layers=_rewrite(evicted.layers, window_start))


def _slide(
    read: MemoryState, cached: MemoryState, written: MemoryState, sleep: SleepConfig
) -> MemoryState:
    """What a window leaves under sliding eviction.

    read: after pass 1, whose convolution tails go on. cached: the state whose keys and values stay.
    written: after the last pass.
    """
    layers = tuple(
        new if isinstance(new, AttentionState) else old
        for old, new in zip(read.layers, cached.layers, strict=True)
    )
    kept = dataclasses.replace(read, layers=_rewrite(layers, written.layers))
    return kept.slide(Band(sleep.window, sleep.sinks))


def _rewrite(
    layers: tuple[LayerState, ...], others: Sequence[LayerState | None]
) -> tuple[LayerState, ...]:
    """The layers with the fast weights of others."""
    return tuple(
        layer.with_fast_weights(other)
        if isinstance(layer, DeltaState) and isinstance(other, DeltaState)
        else layer
        for layer, other in zip(layers, others, strict=True)
    )
