"""Which parts of a ledger the fast weights were built from, sleep by sleep."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable
from typing import NamedTuple

from slowwave.memory.ledger import Entry
from slowwave.memory.sleep_report import SleepReport
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.schedule import cut_stream


class Span(NamedTuple):
    """Tokens start..stop of the entry at a place of the ledger."""

    place: int
    start: int
    stop: int


class Slept(NamedTuple):
    """A sleep, and the tokens start..stop of the stream that it consolidated.

    None if it was called for and rejected. A rejected sleep of a full window has its tokens: they
    were read, and evicted with one pass.
    """

    report: SleepReport
    start: int
    stop: int


class Provenance(NamedTuple):
    """sleeps: what each sleep consolidated. window: what has been read since the last one."""

    sleeps: list[list[Span]]
    window: list[Span]


def trace(
    entries: Iterable[Entry],
    sleep: SleepConfig,
    *,
    window_fill: int = 0,
    rejected: Container[int] = (),
) -> Provenance:
    """Follows entries into the sleeps that a session with these settings had.

    window_fill: tokens that were in the window before the first entry, which no span names.
    rejected: places of the sleeps that a gate rejected.
    """
    sleeps: list[list[Span]] = []
    window: list[Span] = []
    for place, entry in enumerate(entries):
        if place in rejected:
            sleeps.append([])
        elif entry.kind == "sleep":
            sleeps.append(window)
            window, window_fill = [], 0
        for segment in cut_stream(len(entry.tokens), sleep, window_fill=window_fill):
            window.append(Span(place, segment.start, segment.stop))
            window_fill += segment.stop - segment.start
            if segment.closes:
                sleeps.append(window)
                window, window_fill = [], 0
    return Provenance(sleeps, window)


def place_sleeps(
    entries: Iterable[Entry], reports: Iterable[SleepReport], *, start: int = 0, slept: int = 0
) -> list[list[Slept]]:
    """For every entry the sleeps that happened in it, given all that happened in all of them.

    start: tokens of the stream before the first entry. slept: those of them that the sleeps before
    consolidated.
    """
    placed: list[list[Slept]] = []
    pending = deque(reports)
    for entry in entries:
        start += len(entry.tokens)
        mine: list[Slept] = []
        # What was called for has an entry of its own; a full window sleeps where it is filled.
        while pending and (pending[0].trigger == "full") == (entry.kind != "sleep"):
            stop = slept + pending[0].num_evicted
            if stop > start:
                break
            mine.append(Slept(pending.popleft(), slept, stop))
            slept = stop
            if entry.kind == "sleep":
                break
        placed.append(mine)
    assert not pending, "a sleep happened in no entry"
    return placed


def locate(entries: Iterable[Entry], sleeps: Iterable[Slept]) -> Provenance:
    """As `trace`, from the sleeps that were recorded."""
    stops = deque(slept.stop for slept in sleeps)
    closed: list[list[Span]] = []
    window: list[Span] = []
    begin = 0
    for place, entry in enumerate(entries):
        at, end = begin, begin + len(entry.tokens)
        while stops and stops[0] <= end:
            stop = stops.popleft()
            if stop > at:
                window.append(Span(place, at - begin, stop - begin))
            closed.append(window)
            window, at = [], stop
        if end > at:
            window.append(Span(place, at - begin, end - begin))
        begin = end
    return Provenance(closed, window)
