"""Which parts of a ledger the fast weights were built from, sleep by sleep."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from slowwave.memory.ledger import Entry
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.schedule import cut_stream


class Span(NamedTuple):
    """Tokens start..stop of the entry at a place of the ledger."""

    place: int
    start: int
    stop: int


class Provenance(NamedTuple):
    """sleeps: what each sleep consolidated. window: what has been read since the last one."""

    sleeps: list[list[Span]]
    window: list[Span]


def trace(entries: Iterable[Entry], sleep: SleepConfig, *, window_fill: int = 0) -> Provenance:
    """Follows entries into the sleeps that a session with these settings had.

    window_fill: tokens that were in the window before the first entry, which no span names.
    """
    sleeps: list[list[Span]] = []
    window: list[Span] = []
    for place, entry in enumerate(entries):
        if entry.kind == "sleep":
            sleeps.append(window)
            window, window_fill = [], 0
        for segment in cut_stream(len(entry.tokens), sleep, window_fill=window_fill):
            window.append(Span(place, segment.start, segment.stop))
            window_fill += segment.stop - segment.start
            if segment.closes:
                sleeps.append(window)
                window, window_fill = [], 0
    return Provenance(sleeps, window)
