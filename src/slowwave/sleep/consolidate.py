"""Sleep itself: passes 2..N over the window's hidden states, then eviction (paper, Algorithm 1)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor

from slowwave.model.hybrid import HybridLM, Run
from slowwave.sleep.config import Recirculate
from slowwave.state import MemoryState


def consolidate(
    model: HybridLM,
    state: MemoryState,
    *,
    passes: int,
    recirculate: Recirculate = "hidden",
    on_pass: Callable[[int, MemoryState], Any] | None = None,
    run: Run | None = None,
) -> MemoryState:
    """Sleeps on the window in `state` and drops it.

    The read was pass 1. Pass n starts from the fast weights that pass n-1 left, with an empty
    attention cache and a zero convolution tail, and reads the hidden states that pass n-1 put
    out. passes=1 is plain eviction. on_pass(n, state) sees the state after each pass, n = 1 for
    the read. run replaces `model.run`, for a compiled or a checkpointed one.

    Raises ValueError if passes < 1 or the window is empty.
    """
    if passes < 1:
        raise ValueError(f"passes is {passes}; use 1 (plain eviction) or more")
    if state.window_fill == 0:
        raise ValueError("the window is empty, there is nothing to sleep on; read tokens first")
    run = model.run if run is None else run
    hidden, mask, tokens = state.window_hidden, state.window_mask, state.window_tokens
    slept = state.evict()
    if on_pass is not None:
        on_pass(1, slept)
    for n in range(2, passes + 1):
        # One name for both states: the pass's keys and values are freed before the next pass runs.
        read = _reread(model, hidden, tokens, recirculate)
        hidden, slept = run(read, slept, mask=mask, evicts=n == passes)
        slept = slept.evict()
        if on_pass is not None:
            on_pass(n, slept)
    return dataclasses.replace(slept, num_sleeps=state.num_sleeps + 1)


def _reread(model: HybridLM, hidden: Tensor, tokens: Tensor, recirculate: Recirculate) -> Tensor:
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
