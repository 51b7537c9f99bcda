"""Another way to know what each sleep consolidated: from the ledger and the settings alone."""

from __future__ import annotations

from collections.abc import Container, Iterable

from slowwave.memory.ledger import Entry
from slowwave.memory.sleep_report import Provenance, Span
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.schedule import cut_stream


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
