"""The ledger of a session, beside the sleeps that consolidated it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from slowwave.commands.printing import shorten, show_changes, show_time
from slowwave.commands.tables import make_table

if TYPE_CHECKING:
    from slowwave.memory.ledger import Entry
    from slowwave.memory.sleep_report import Provenance, SleepReport, Slept, Span

TEXT_LENGTH = 200
SOURCE_LENGTH = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class LedgerRow:
    """An entry of the ledger; `place` is its name."""

    place: int
    kind: str
    """told, reply, or a sleep that was asked for."""
    time: float
    """Seconds since 1970."""
    source: str
    text: str
    num_tokens: int
    passes: int | None
    sleeps: list[int]
    """Numbers of the sleeps that consolidated its tokens."""
    in_window: int
    """Tokens of it that no sleep has consolidated."""


def list_ledger(
    entries: Sequence[Entry], provenance: Provenance, places: Collection[int] | None = None
) -> list[LedgerRow]:
    """The entries at some places, or all."""
    sleeps: dict[int, list[int]] = {}
    # A sleep that was called for and rejected has no spans, and leaves its number to the next.
    for number, spans in enumerate(filter(None, provenance.sleeps), start=1):
        for span in spans:
            sleeps.setdefault(span.place, []).append(number)
    in_window = {span.place: span.stop - span.start for span in provenance.window}
    return [
        LedgerRow(
            place=place,
            kind=entry.kind,
            time=entry.time,
            source=entry.source,
            text=entry.text,
            num_tokens=len(entry.tokens),
            passes=entry.passes,
            sleeps=sleeps.get(place, []),
            in_window=in_window.get(place, 0),
        )
        for place, entry in enumerate(entries)
        if places is None or place in places
    ]


def ledger_table(rows: Iterable[LedgerRow], title: str | None = None) -> Table:
    """A line for each entry."""
    lines = [
        (
            str(row.place),
            show_time(row.time),
            shorten(row.source, SOURCE_LENGTH),
            _say(row),
            f"{row.num_tokens:,}",
            _place(row),
        )
        for row in rows
    ]
    columns = ("place", "time", "source", "text", "tokens", "sleep")
    return make_table(columns, lines, right=("place", "tokens"), cut="text", title=title)


def sleeps_table(sleeps: Iterable[tuple[Slept, Sequence[Span]]]) -> Table:
    """A line for each sleep: what it consolidated, and what that did."""
    lines = [
        (
            str(report.number),
            "window full" if report.trigger == "full" else report.trigger,
            f"{start:,} to {stop:,}" if stop > start else "",
            _join([span.place for span in spans]),
            str(report.passes),
            f"{report.milliseconds:,.0f}",
            _show_outcome(report),
        )
        for (report, start, stop), spans in sleeps
    ]
    columns = ("sleep", "why", "tokens", "places", "N", "ms", "change")
    return make_table(columns, lines, right=("sleep", "N", "ms"), wrapped=("change",))


def _show_outcome(report: SleepReport) -> str:
    if report.is_rejected:
        return "rejected" if report.is_undone else "rejected, one pass instead"
    return show_changes(report.changes) if report.changes else ""


def _say(row: LedgerRow) -> str:
    if row.kind == "sleep":
        return "(sleep)" if row.passes is None else f"(sleep, N = {row.passes})"
    return shorten(row.text, TEXT_LENGTH)


def _place(row: LedgerRow) -> str:
    parts = [_join(row.sleeps)] if row.sleeps else []
    return ", ".join([*parts, "window"] if row.in_window else parts)


def _join(numbers: Sequence[int]) -> str:
    """ "3" or "3-7", of numbers without gaps."""
    if not numbers:
        return ""
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"
