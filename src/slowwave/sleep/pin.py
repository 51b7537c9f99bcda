"""Entries that stay for ever: a system prompt, which lies outside every window."""

from __future__ import annotations

import dataclasses

from slowwave.entries import PINNED, Entries
from slowwave.models.backbone import HybridLM
from slowwave.sleep.config import Compact, SleepConfig
from slowwave.sleep.consolidators.candidates import list_candidates, put_entries
from slowwave.sleep.positions import count_positions
from slowwave.state import KeyValues, MemoryState


def pin_window(model: HybridLM, state: MemoryState) -> MemoryState:
    """The state with all of its open window turned into entries that no sleep drops or turns.

    Attention goes on seeing every token of it, at its place; recurrent layers keep what they have
    read. It is no sleep, and counts as none. Raises ValueError if the window is empty, or slides.
    """
    if state.window_fill == 0:
        raise ValueError("the window is empty, there is nothing to pin; read tokens first")
    if state.carried is not None:
        raise ValueError(
            "sleep.eviction is sliding, which keeps tokens where pinned entries would be; use all"
        )
    streams = [
        [Entries.join([head.old, head.new]) for head in list_candidates(model, state, i)]
        for i in range(state.batch_size)
    ]
    pinned = put_entries(model, state.evict(), streams)
    return dataclasses.replace(pinned, position=count_positions(state))


def can_pin(sleep: SleepConfig) -> bool:
    """Whether sleeps under these settings keep entries, pinned ones among them."""
    return isinstance(sleep.consolidator, Compact) and sleep.eviction == "all"


def is_pinned(state: MemoryState) -> bool:
    """Whether all that was read before the open window is pinned, of which there may be nothing."""
    before = state.tokens_seen - state.window_fill
    if not bool(before.any()):
        return True
    entries = [layer.compact for layer in state.layers if isinstance(layer, KeyValues)]
    return bool(entries) and all(
        each is not None
        and bool((each.lengths == before[:, None]).all())
        and bool((each.score == PINNED).all())
        for each in entries
    )
