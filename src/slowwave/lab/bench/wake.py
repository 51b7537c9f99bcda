"""What a user waits for: a generated token after a short and after a very long stream.

States are immutable, so those after short and long streams are kept and timed in turn.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch

from slowwave.lab.bench.machine import Machine
from slowwave.lab.bench.memory import measure_paused
from slowwave.lab.bench.models import MODEL, generate, moved_nbytes, read_random, read_random_window
from slowwave.lab.bench.report import Row, Section, timed_row
from slowwave.lab.bench.timing import Work, time_in_turn
from slowwave.models.backbone import HybridLM
from slowwave.ops import native
from slowwave.sleep.config import SleepConfig
from slowwave.state import MemoryState

WINDOW = 512
FILL = 64
"""Tokens in the open window when a generated token is timed: the same after every stream."""
NUM_WINDOWS = (2, 195, 1953)
"""Windows read before: about 1 k, 100 k and 1 M tokens."""
TOKENS_TIMED = 32
ROUNDS = 41
PASSES = (1, 4)


def run_wake(device: torch.device, machine: Machine) -> list[Section]:
    """Generates TOKENS_TIMED tokens from every state in turn."""
    with torch.inference_mode():
        model = HybridLM(MODEL).eval().to(device)
        states: dict[str, tuple[MemoryState, SleepConfig]] = {}
        for passes in PASSES:
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
            each,
            calls=TOKENS_TIMED,
            reference=(first, times[first]),
            reference_calls=TOKENS_TIMED,
            machine=machine,
            moved_nbytes=moved_nbytes(model, states[name][0]),
            context=states[name][0].counters.tokens_seen,
            nbytes=states[name][0].nbytes,
        )
        for name, each in times.items()
    ]
    note = f"windows of {WINDOW} tokens, {FILL} in the open one; nbytes: the whole state"
    return [
        Section(title="Awake, after a stream", rows=rows, notes=[note]),
        *_measure_resident(),
    ]


def stream_with_pauses(passes: str) -> Iterator[int]:
    """Reads one endless stream in a fresh process; pauses where its memory is to be looked at."""
    if native.find_obstacle() is None:
        native.load()
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
    for passes in PASSES:
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
