"""Wall time of several pieces of work, taken in turn: what drifts in the machine drifts for all."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from slowwave.lab.bench.progress import LOG

LEAST_SECONDS = 0.01
"""A sample is of as many calls as take this long."""


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """What is timed; `prepare`, which is not, makes what each call of `run` takes."""

    run: Callable[..., object]
    prepare: Callable[[], Any] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Times:
    """Seconds of one piece of work, one entry a round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles over the median; 0 for a single round."""
        return _spread(self.seconds)

    def over(self, other: Times) -> Times:
        """The ratios to `other` within each round."""
        pairs = zip(self.seconds, other.seconds, strict=True)
        return Times(tuple(mine / theirs for mine, theirs in pairs))


def time_in_turn(works: Mapping[str, Work], *, rounds: int, warmups: int = 1) -> dict[str, Times]:
    """Does all works round after round, every other round backwards; seconds are of one call."""
    calls = dict[str, int]()
    for name, work in works.items():
        LOG.info("warming up %s", name)
        calls[name] = _warm_up(work, warmups)
    seconds: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    for number in range(1, rounds + 1):
        LOG.info("timing %s: round %d of %d", ", ".join(works), number, rounds)
        for name in names:
            seconds[name].append(_time(works[name], calls[name]))
        names.reverse()
    return {name: Times(tuple(values)) for name, values in seconds.items()}


def _warm_up(work: Work, warmups: int) -> int:
    """Calls the work `warmups` times and at least once; returns the calls that make a sample."""
    seconds = [_time(work, 1) for _ in range(max(1, warmups))]
    return max(1, math.ceil(LEAST_SECONDS / max(seconds[-1], 1e-9)))


def _time(work: Work, calls: int) -> float:
    total = 0.0
    for _ in range(calls if work.prepare else 1):
        arguments = () if work.prepare is None else (work.prepare(),)
        _finish()
        began = time.perf_counter()
        for _ in range(1 if work.prepare else calls):
            work.run(*arguments)
        _finish()
        total += time.perf_counter() - began
    return total / calls


def _spread(values: tuple[float, ...]) -> float:
    if len(values) < 2:
        return 0.0
    first, middle, third = statistics.quantiles(values, n=4, method="inclusive")
    return (third - first) / 2 / middle


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
