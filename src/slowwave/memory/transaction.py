"""A sleep as one transaction: tried, judged, and taken whole or not at all."""

from __future__ import annotations

import time

import torch

from slowwave.memory.config import GateConfig
from slowwave.memory.gate import judge
from slowwave.memory.rehearsal import rehearse
from slowwave.memory.sleep_report import SleepReport, Trigger, Verdict, measure_changes, report_pin
from slowwave.memory.turn import Progress, Steps
from slowwave.runtime.model_folder import TalkingModel
from slowwave.sleep.consolidate import consolidate, consolidate_by_pass
from slowwave.sleep.pin import can_pin, is_pinned, pin_window
from slowwave.state import MemoryState


def sleep_by_pass(
    talker: TalkingModel,
    state: MemoryState,
    *,
    passes: int,
    trigger: Trigger,
    gate: GateConfig | None = None,
) -> Steps[tuple[MemoryState, SleepReport]]:
    """The state to go on with, and what happened; in steps of a pass, and of what a gate measures.

    If the gate rejects a sleep that was called for, that is the state itself. A full window is
    evicted with one pass then, for attention never learned to see more than a window. One pass,
    plain eviction, cannot be refused. Raises ValueError as `consolidate`.
    """
    pass_changes = list[tuple[float, ...]]()
    began = time.perf_counter()
    replay = rehearse(talker, state) if passes > 1 else None
    last, num_passes, seconds = state, 0, time.perf_counter() - began
    if replay is not None:
        yield Progress("sleep")
    steps = consolidate_by_pass(
        talker.model, state, passes=passes, sleep=talker.sleep, replay=replay
    )
    while True:
        began = time.perf_counter()
        try:
            left = next(steps)
        except StopIteration as woken:
            slept: MemoryState = woken.value
            break
        num_passes += 1
        if num_passes > 1:
            pass_changes.append(measure_changes(last, left))
        last = left
        seconds += time.perf_counter() - began
        yield Progress("sleep")
    changes = measure_changes(state, slept)
    seconds += time.perf_counter() - began
    after, verdict = slept, None
    if gate is not None:
        yield Progress("sleep")
        judging = _judge(talker, state, slept, passes=passes, trigger=trigger, gate=gate)
        after, verdict = yield from judging
    return after, SleepReport(
        trigger=trigger,
        number=slept.counters.num_sleeps,
        tokens=state.window_fill,
        passes=passes,
        milliseconds=1000 * seconds,
        bytes_before=state.nbytes,
        bytes_after=after.nbytes,
        changes=changes,
        pass_changes=tuple(pass_changes),
        verdict=verdict,
        consolidator="evict" if passes == 1 else talker.sleep.consolidator.kind,
        replayed=0 if replay is None else replay.tokens.shape[1],
        entries=after.num_entries,
    )


@torch.inference_mode()
def pin_system(
    talker: TalkingModel, state: MemoryState, num_tokens: int
) -> tuple[MemoryState, list[SleepReport]]:
    """Keeps what sets up a conversation, the last tokens read, outside the window for ever.

    It is what a stream begins with, before anything else was said or slept on, of a model whose
    sleeps keep entries. The state that goes on, and what happened, if anything.
    """
    has_just_begun = state.window_fill == num_tokens and is_pinned(state)
    if not has_just_begun or not can_pin(talker.sleep):
        return state, []
    began = time.perf_counter()
    pinned = pin_window(talker.model, state).after_sleep()
    return pinned, [report_pin(state, pinned, 1000 * (time.perf_counter() - began))]


def _judge(
    talker: TalkingModel,
    state: MemoryState,
    slept: MemoryState,
    *,
    passes: int,
    trigger: Trigger,
    gate: GateConfig,
) -> Steps[tuple[MemoryState, Verdict]]:
    """The state to go on with, and why."""
    if passes == 1:
        reason = "one pass is plain eviction, which cannot be refused"
        return slept, Verdict(outcome="accepted_unmeasured", reasons=(reason,))
    refused = state
    if trigger == "full":
        refused = consolidate(talker.model, state, passes=1, sleep=talker.sleep)
    verdict = yield from judge(talker, gate, refused=refused, accepted=slept)
    return refused if verdict.outcome == "rejected" else slept, verdict
