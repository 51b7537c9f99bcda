"""What a user waits for: a token after a long stream, and a sleep, measured side by side.

States are immutable, so those after short and long streams are kept and timed in turn, round by
round: what drifts in the machine drifts for all of them.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from slowwave.model.config import ModelConfig
from slowwave.model.hybrid import HybridLM
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.consolidate import consolidate
from slowwave.sleep.stream import read_stream
from slowwave.state import MemoryState
from slowwave.storage.environment import describe_environment
from slowwave.storage.files import write_json

MODEL = ModelConfig(vocab_size=256, width=96, max_beta=2.0)
WINDOW = 512
FILL = 64
"""Tokens in the open window when a generated token is timed: the same after every stream."""
NUM_WINDOWS = (2, 195, 1953)
"""Windows read before: about 1 k, 100 k and 1 M tokens."""
TOKENS_TIMED = 32
WAKE_ROUNDS = 41
SLEEP_ROUNDS = 41
PASSES = (1, 4)


@dataclasses.dataclass(frozen=True, slots=True)
class WakeTime:
    """The time of one generated token after a stream, next to that after the shortest."""

    passes: int
    tokens_seen: int
    milliseconds: float
    ratio: float
    """To the state of N = 1 after the shortest stream, median of the ratios of each round."""
    state_nbytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class SleepTime:
    """The time of a sleep over the time of N - 1 reads of its window."""

    passes: int
    milliseconds: float
    read_milliseconds: float
    ratio: float


def measure_wake(model: HybridLM, num_windows: tuple[int, ...], *, rounds: int) -> list[WakeTime]:
    """Generates TOKENS_TIMED tokens from every state in turn, `rounds` times."""
    states = {
        (passes, windows): _stream_states(model, passes, windows)
        for passes in PASSES
        for windows in num_windows
    }
    seconds: dict[tuple[int, int], list[float]] = {key: [] for key in states}
    for _ in range(rounds):
        for key, state in states.items():
            sleep = SleepConfig(window=WINDOW, passes=key[0])
            seconds[key].append(_time(lambda s=state, c=sleep: _generate(model, s, c)))
    base = seconds[PASSES[0], num_windows[0]]
    return [
        WakeTime(
            passes=passes,
            tokens_seen=states[passes, windows].tokens_seen,
            milliseconds=1e3 * statistics.median(times) / TOKENS_TIMED,
            ratio=statistics.median(a / b for a, b in zip(times, base, strict=True)),
            state_nbytes=states[passes, windows].nbytes,
        )
        for (passes, windows), times in seconds.items()
    ]


def measure_sleep(model: HybridLM, *, rounds: int) -> list[SleepTime]:
    """Times sleeps of 2..4 passes in turn with a one-call read of the same window, no logits."""
    tokens = _draw_tokens(model, WINDOW)
    start = model.initial_state(1)
    _, full = model.read(tokens, start)
    counts = (2, 3, 4)
    reads: list[float] = []
    sleeps: dict[int, list[float]] = {passes: [] for passes in counts}
    for _ in range(rounds):
        reads.append(_time(lambda: model.run(model.embed(tokens), start)))
        for passes in counts:
            sleeps[passes].append(_time(lambda n=passes: consolidate(model, full, passes=n)))
    return [
        SleepTime(
            passes=passes,
            milliseconds=1e3 * statistics.median(times),
            read_milliseconds=1e3 * statistics.median(reads),
            ratio=statistics.median(
                a / (b * (passes - 1)) for a, b in zip(times, reads, strict=True)
            ),
        )
        for passes, times in sleeps.items()
    ]


def run_bench_wake(*, out: Path | None, as_json: bool) -> None:
    """Measures, prints a table or JSON, and writes wake.json into `out` if given."""
    with torch.inference_mode():
        model = HybridLM(MODEL).eval()
        sleeps = measure_sleep(model, rounds=SLEEP_ROUNDS)
        wakes = measure_wake(model, NUM_WINDOWS, rounds=WAKE_ROUNDS)
    result: dict[str, Any] = {
        "model": MODEL.to_dict(),
        "window": WINDOW,
        "window_fill": FILL,
        "wake": [dataclasses.asdict(wake) for wake in wakes],
        "sleep": [dataclasses.asdict(sleep) for sleep in sleeps],
        "environment": describe_environment(seed=0),
    }
    if out is not None:
        write_json(out / "wake.json", result)
    if as_json:
        print(json.dumps(result))
        return
    console = Console()
    console.print(_table(wakes, "A generated token after a long stream"))
    console.print(_table(sleeps, "A sleep over N - 1 reads of its window"))


def _table(rows: list[WakeTime] | list[SleepTime], title: str) -> Table:
    table = Table(title=title)
    for field in dataclasses.fields(rows[0]):
        table.add_column(field.name.replace("_", " "), justify="right")
    for row in rows:
        values = dataclasses.asdict(row).values()
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else f"{v:,}" for v in values))
    return table


def _stream_states(model: HybridLM, passes: int, windows: int) -> MemoryState:
    """The state after `windows` slept windows and FILL tokens of the next."""
    sleep = SleepConfig(window=WINDOW, passes=passes)
    state = model.initial_state(1)
    tokens = _draw_tokens(model, WINDOW)
    for _ in range(windows):
        _, state = read_stream(model, tokens, state, sleep)
    _, state = read_stream(model, tokens[:, :FILL], state, sleep)
    return state


def _generate(model: HybridLM, state: MemoryState, sleep: SleepConfig) -> None:
    """Greedy decoding of TOKENS_TIMED tokens, which stay inside the window."""
    token = torch.zeros(1, 1, dtype=torch.int64)
    for _ in range(TOKENS_TIMED):
        hidden, state = read_stream(model, token, state, sleep)
        token = model.logits(hidden).argmax(-1)


def _draw_tokens(model: HybridLM, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, model.config.vocab_size, (1, count), generator=generator)


def _time(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
