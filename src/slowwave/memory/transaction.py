"""A sleep as one transaction: tried, judged, and taken whole or not at all."""

from __future__ import annotations

import time

from slowwave.generation.model_folder import Talker
from slowwave.memory.config import GateConfig
from slowwave.memory.gate import judge
from slowwave.memory.sleep_report import SleepReport, Trigger, measure_changes
from slowwave.memory.verdict import Verdict
from slowwave.sleep.consolidate import consolidate
from slowwave.state import MemoryState


def sleep_on(
    talker: Talker,
    state: MemoryState,
    *,
    passes: int,
    trigger: Trigger,
    gate: GateConfig | None = None,
) -> tuple[MemoryState, SleepReport]:
    """The state to go on with, and what happened.

    If the gate rejects a sleep that was called for, that is the state itself. A full window is
    evicted with one pass then, for attention never learned to see more than a window. One pass,
    plain eviction, cannot be refused. Raises ValueError as `consolidate`.
    """
    began = time.perf_counter()
    pass_changes = list[tuple[float, ...]]()
    last = state

    def follow(n: int, left: MemoryState) -> None:
        nonlocal last
        if n > 1:
            pass_changes.append(measure_changes(last, left))
        last = left

    slept = consolidate(talker.model, state, passes=passes, sleep=talker.sleep, on_pass=follow)
    changes = measure_changes(state, slept)
    milliseconds = 1000 * (time.perf_counter() - began)
    number, after, verdict = slept.num_sleeps, slept, None
    if gate is not None and passes == 1:
        reason = "one pass is plain eviction, which cannot be refused"
        verdict = Verdict(outcome="accepted_unmeasured", reasons=(reason,))
    elif gate is not None:
        refused = state
        if trigger == "full":
            refused = consolidate(talker.model, state, passes=1, sleep=talker.sleep)
        verdict = judge(talker, gate, refused=refused, accepted=slept)
        after = refused if verdict.outcome == "rejected" else slept
    return after, SleepReport(
        trigger=trigger,
        number=number,
        tokens=state.window_fill,
        passes=passes,
        milliseconds=milliseconds,
        bytes_before=state.nbytes,
        bytes_after=after.nbytes,
        changes=changes,
        pass_changes=tuple(pass_changes),
        verdict=verdict,
    )
