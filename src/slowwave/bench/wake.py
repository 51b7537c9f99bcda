"""What a user waits for: a generated token after a short and after a very long stream.

States are immutable, so those after short and long streams are kept and timed in turn.
"""

from __future__ import annotations

import functools

import torch

from slowwave.bench.machine import Machine
from slowwave.bench.models import MODEL, draw_tokens
from slowwave.bench.report import Row, Section
from slowwave.bench.timing import Work, time_in_turn
from slowwave.model.hybrid import HybridLM
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.stream import read_stream
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
    """Generates TOKENS_TIMED tokens from every state in turn; nbytes are those of the state."""
    del machine
    with torch.inference_mode():
        model = HybridLM(MODEL).eval().to(device)
        states = {
            f"N = {passes}, {windows * WINDOW + FILL:,} tokens before": (
                _stream_states(model, passes, windows),
                SleepConfig(window=WINDOW, passes=passes),
            )
            for passes in PASSES
            for windows in NUM_WINDOWS
        }
        works: dict[str, Work] = {
            name: functools.partial(_generate, model, state, sleep)
            for name, (state, sleep) in states.items()
        }
        times = time_in_turn(works, rounds=ROUNDS)
    first = next(iter(times))
    rows = [
        Row(
            what="a token",
            by=name,
            context=states[name][0].tokens_seen,
            milliseconds=1e3 * each.median / TOKENS_TIMED,
            spread=each.spread,
            ratio=each.over(times[first]),
            ratio_to=first,
            nbytes=states[name][0].nbytes,
        )
        for name, each in times.items()
    ]
    note = f"windows of {WINDOW} tokens, {FILL} in the open one; nbytes: the whole state"
    return [Section(title="Awake, after a stream", rows=rows, notes=[note])]


def _stream_states(model: HybridLM, passes: int, windows: int) -> MemoryState:
    """The state after `windows` slept windows and FILL tokens of the next."""
    sleep = SleepConfig(window=WINDOW, passes=passes)
    state = model.initial_state(1)
    tokens = draw_tokens(model, WINDOW)
    for _ in range(windows):
        _, state = read_stream(model, tokens, state, sleep)
    _, state = read_stream(model, tokens[:, :FILL], state, sleep)
    return state


def _generate(model: HybridLM, state: MemoryState, sleep: SleepConfig) -> None:
    """Greedy decoding of TOKENS_TIMED tokens, which stay inside the window."""
    token = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
    for _ in range(TOKENS_TIMED):
        hidden, state = read_stream(model, token, state, sleep)
        token = model.logits(hidden).argmax(-1)
