"""Wall time of several pieces of work, taken in turn: what drifts in the machine drifts for all."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping

import torch

Work = Callable[[], object]


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
        if len(self.seconds) < 2:
            return 0.0
        first, _, third = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (third - first) / 2 / self.median

    def over(self, other: Times) -> float:
        """Median of the ratios to `other` within each round."""
        pairs = zip(self.seconds, other.seconds, strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)


def time_in_turn(
    works: Mapping[str, Work], *, rounds: int, warmups: int = 1, calls: int = 1
) -> dict[str, Times]:
    """Does every piece of work `calls` times, round after round; seconds are those of one call."""
    for work in works.values():
        for _ in range(warmups):
            work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            seconds[name].append(_time(work, calls))
    return {name: Times(tuple(values)) for name, values in seconds.items()}


def _time(work: Work, calls: int) -> float:
    _finish()
    began = time.perf_counter()
    for _ in range(calls):
        work()
    _finish()
    return (time.perf_counter() - began) / calls


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
