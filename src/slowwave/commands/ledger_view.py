"""The ledger of a session, beside the sleeps that consolidated it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from slowwave.commands.printing import shorten, show_changes, show_time

if TYPE_CHECKING:
    from slowwave.memory.ledger import Entry
    from slowwave.memory.provenance import Provenance, Slept, Span

TEXT_LENGTH = 60


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
    for number, spans in enumerate(provenance.sleeps, start=1):
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
    table = Table(title=title, title_justify="left")
    for column in ("place", "time", "source", "text", "tokens", "slept on in"):
        justify = "right" if column in ("place", "tokens") else "left"
        table.add_column(column, justify=justify, no_wrap=column != "text")
    for row in rows:
        table.add_row(
            str(row.place),
            show_time(row.time),
            Text(shorten(row.source, 24)),
            Text(_say(row)),
            f"{row.num_tokens:,}",
            _place(row),
        )
    return table


def sleeps_table(sleeps: Iterable[tuple[Slept, Sequence[Span]]]) -> Table:
    """A line for each sleep: what it consolidated, and what that did."""
    table = Table()
    for column in ("sleep", "why", "tokens of the stream", "of places", "N", "ms", "change"):
        justify = "right" if column in ("sleep", "N", "ms") else "left"
        table.add_column(column, justify=justify, no_wrap=column != "change")
    for (report, start, stop), spans in sleeps:
        table.add_row(
            str(report.number),
            "window full" if report.trigger == "full" else report.trigger,
            f"{start:,} to {stop:,}",
            _join([span.place for span in spans]),
            str(report.passes),
            f"{report.milliseconds:,.0f}",
            show_changes(report.changes) if report.changes else "",
        )
    return table


def _say(row: LedgerRow) -> str:
    if row.kind == "sleep":
        return "(sleep)" if row.passes is None else f"(sleep, N = {row.passes})"
    return shorten(row.text, TEXT_LENGTH)


def _place(row: LedgerRow) -> str:
    parts = [f"sleep {_join(row.sleeps)}"] if row.sleeps else []
    if row.in_window:
        parts.append("window" if not row.sleeps else f"window ({row.in_window:,} tokens)")
    return ", ".join(parts)


def _join(numbers: Sequence[int]) -> str:
    """ "3" or "3 to 7", of numbers without gaps."""
    if not numbers:
        return ""
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
