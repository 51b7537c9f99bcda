"""What a user waits for: a sleep, and a token after a short and after a very long stream."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import torch

from slowwave.lab.bench.measure import Machine, Work, measure_paused, time_in_turn
from slowwave.lab.bench.models import (
    MODEL,
    draw_tokens,
    generate,
    load_native,
    moved_nbytes,
    read_random,
    read_random_window,
)
from slowwave.lab.bench.report import WAKE, Row, Section, timed_row
from slowwave.models.backbone import HybridLM
from slowwave.models.flops import Pass, pass_flops
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.consolidate import consolidate
from slowwave.state import MemoryState

WINDOW = 512
ROUNDS = 41
FILL = 64
"""Tokens in the open window when a generated token is timed: the same after every stream."""
NUM_WINDOWS = (2, 195, 1953)
"""Windows read before: about 1 k, 100 k and 1 M tokens."""
TOKENS_TIMED = 32
WAKE_PASSES = (1, 4)
SLEEP_PASSES = (2, 3, 4)
READ = "one-call read, no logits"


def run_sleep(device: torch.device, machine: Machine) -> list[Section]:
    """Times sleeps of 2..4 passes in turn with reads of the window; ratios are to N - 1 reads."""
    with torch.inference_mode():
        model = HybridLM(MODEL).eval().to(device)
        tokens = draw_tokens(model, WINDOW)
        start = model.initial_state(1)
        _, full = model.read(tokens, start)
        works = {READ: Work(lambda: model.run(model.embed(tokens), start))}
        for passes in SLEEP_PASSES:
            sleep = functools.partial(consolidate, model, full, passes=passes)
            works[f"sleep, N = {passes}"] = Work(sleep)
        times = time_in_turn(works, rounds=ROUNDS)
    whole, last = (pass_flops(MODEL, Pass(WINDOW, 0, evicts)) for evicts in (False, True))
    num_reads = dict(zip(times, (1, *(passes - 1 for passes in SLEEP_PASSES)), strict=True))
    rows = list[Row]()
    for name, count in num_reads.items():
        flops = whole if name == READ else (count - 1) * whole + last
        what = f"a window of {WINDOW}"
        row = timed_row(what, name, times, reference=READ, machine=machine, flops=flops)
        assert row.time_ratio is not None
        ratio, to = row.time_ratio / count, f"{count} reads"
        rows.append(dataclasses.replace(row, time_ratio=ratio, ratio_to=to))
    note = "the last pass of a sleep ends with its last write, so it has fewer operations"
    return [Section(title="Asleep", rows=rows, notes=[note])]


def run_wake(device: torch.device, machine: Machine) -> list[Section]:
    """Generates TOKENS_TIMED tokens from every state in turn.

    States are immutable, so those after short and long streams are kept and timed in turn.
    """
    with torch.inference_mode():
        model = HybridLM(MODEL).eval().to(device)
        states: dict[str, tuple[MemoryState, SleepConfig]] = {}
        for passes in WAKE_PASSES:
            sleep = SleepConfig(window=WINDOW, passes=passes)
            for windows in NUM_WINDOWS:
                read = windows * WINDOW + FILL
                states[f"N = {passes}, {read:,} tokens"] = (read_random(model, sleep, read), sleep)
        works = {
            name: Work(functools.partial(generate, model, state, sleep, TOKENS_TIMED))
            for name, (state, sleep) in states.items()
        }
        times = time_in_turn(works, rounds=ROUNDS)
    first = next(iter(times))
    rows = [
        timed_row(
            "a token",
            name,
            times,
            reference=first,
            calls=TOKENS_TIMED,
            machine=machine,
            moved_nbytes=moved_nbytes(model, state),
            context=state.counters.tokens_seen,
            nbytes=state.nbytes,
        )
        for name, (state, _) in states.items()
    ]
    note = f"windows of {WINDOW} tokens, {FILL} in the open one; nbytes: the whole state"
    return [Section(title=WAKE, rows=rows, notes=[note]), *_measure_resident()]


def stream_with_pauses(passes: str) -> Iterator[int]:
    """Reads one endless stream in a fresh process; pauses where its memory is to be looked at."""
    load_native()
    sleep = SleepConfig(window=WINDOW, passes=int(passes))
    with torch.inference_mode():
        model = HybridLM(MODEL).eval()
        state = model.initial_state(1)
        for windows in NUM_WINDOWS:
            while state.counters.num_sleeps < windows:
                state = read_random_window(model, sleep, state, WINDOW)
            yield state.counters.tokens_seen


def _measure_resident() -> list[Section]:
    """Resident memory of one process while it reads on and on."""
    rows: list[Row] = []
    for passes in WAKE_PASSES:
        resident = measure_paused(__name__, "stream_with_pauses", str(passes))
        if resident is None:
            return []
        for windows, (nbytes, _) in zip(NUM_WINDOWS, resident, strict=True):
            rows.append(
                Row(
                    what="resident memory",
                    by=f"N = {passes}",
                    context=windows * WINDOW,
                    nbytes=nbytes,
                    memory_ratio=nbytes / resident[0].nbytes,
                    ratio_to=f"N = {passes}, {NUM_WINDOWS[0] * WINDOW:,} tokens",
                )
            )
    return [Section(title="Resident memory of one endless stream", rows=rows)]
