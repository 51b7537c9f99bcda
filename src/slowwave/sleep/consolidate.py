"""Sleep itself: the window is written into mid-term memory, then evicted (paper, Algorithm 1)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator
from typing import Any

from slowwave.models.backbone import HybridLM, Run
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.consolidators.consolidator import Replay, find_consolidator
from slowwave.state import Band, MemoryState

PAPER = SleepConfig()


def consolidate(
    model: HybridLM,
    state: MemoryState,
    *,
    passes: int,
    sleep: SleepConfig = PAPER,
    on_pass: Callable[[int, MemoryState], Any] | None = None,
    run: Run | None = None,
    replay: Replay | None = None,
) -> MemoryState:
    """Sleeps on the window in `state` and drops it.

    The read was pass 1; `sleep.consolidator` does the rest. passes, not `sleep.passes`, says how
    many there are; 1 is plain eviction. on_pass(n, state) sees the state after each pass, n = 1 for
    the read. run replaces `model.run`, for a compiled or a checkpointed one.

    Raises ValueError if the consolidator has no use for so many passes, the window is empty,
    `sleep.eviction` is unfit (none, or all after sliding), or the state at the window's start is
    asked for and was not noted (see `open_window`).
    """
    steps = consolidate_by_pass(model, state, passes=passes, sleep=sleep, run=run, replay=replay)
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
    replay: Replay | None = None,
) -> Generator[MemoryState, None, MemoryState]:
    """As `consolidate`, pass by pass: yields the state after each, and returns that of waking up.

    A caller that stops asking has not slept.
    """
    sleep.require_passes(passes)
    if state.window_fill == 0:
        raise ValueError("the window is empty, there is nothing to sleep on; read tokens first")
    if sleep.eviction == "none":
        raise ValueError("sleep.eviction is none, which never sleeps; use all or sliding")
    if sleep.reach is None and state.carried is not None:
        raise ValueError(
            f"sleep.eviction is {sleep.eviction}, but the state carries {state.num_carried} tokens "
            "of windows that were slept on with sliding; go on with sliding"
        )
    yield state.evict()
    consolidator = find_consolidator(sleep, passes)
    run = model.run if run is None else run
    layers = yield from consolidator.write(model, state, passes, run, replay)
    slept = dataclasses.replace(state, layers=layers, position=consolidator.position(state))
    band = find_band(sleep)
    return (slept.evict() if band is None else slept.slide(band)).after_sleep()


def find_band(sleep: SleepConfig) -> Band | None:
    """How far attention sees once it has slept; None where it sees nothing of slept windows."""
    return None if sleep.reach is None else Band(sleep.reach, sleep.sinks)
