"""The ledger of a session as people see it: its entries, the sleeps that consolidated them, and
what forgetting or going back would take away."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from slowwave.commands.printing import count, make_table, shorten, show_changes, show_time
from slowwave.memory.ledger import DREAM
from slowwave.memory.names import list_names

if TYPE_CHECKING:
    from rich.table import Table

    from slowwave.memory.ledger import Entry
    from slowwave.memory.sleep_report import Provenance, SleepReport, Slept, Span
    from slowwave.memory.store import Store
    from slowwave.memory.stored_session import Forgetting

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
    entries: Sequence[Entry], provenance: Provenance, places: Collection[int]
) -> list[LedgerRow]:
    """The entries at some places."""
    sleeps: dict[int, list[int]] = {}
    # A rejected sleep that was asked for has no spans, and the next one takes its number.
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
        if place in places
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForgetPreview:
    """A plan of forgetting, and its effect on snapshots and other sessions."""

    dropped: list[LedgerRow]
    """The entries that go: those named, and those of the model after them, which may carry it."""
    carriers: list[int]
    """Places of the latter, which could be kept."""
    num_kept: int
    """Entries that are left; all of them are replayed."""
    replayed_tokens: int
    snapshots: list[str]
    """Snapshots that hold something of it, and go too."""
    also_in: list[str]
    """Other sessions that hold something of it, and keep it."""


def preview(forgetting: Forgetting, provenance: Provenance) -> ForgetPreview:
    """The preview of a plan."""
    plan = forgetting.plan
    return ForgetPreview(
        dropped=list_ledger(plan.entries, provenance, frozenset(plan.dropped)),
        carriers=[*plan.carriers],
        num_kept=len(plan.kept),
        replayed_tokens=plan.num_tokens,
        snapshots=[*forgetting.snapshots],
        also_in=[*forgetting.also_in],
    )


def show_preview(shown: ForgetPreview) -> tuple[Table, str]:
    """A preview for people: a table of the entries that go, and the effects in sentences."""
    tokens = count(shown.replayed_tokens, "token")
    entries = f"{shown.num_kept:,} {'entry' if shown.num_kept == 1 else 'entries'}"
    rest = f"The rest, {entries} with {tokens}, is read again."
    lines = [rest if shown.num_kept else "Nothing else is left."]
    if shown.carriers:
        places = list_names([*map(str, shown.carriers)])
        lines.append(
            "Replies, and lines sent as the model's, after the first of it may carry it and go "
            f"too, unless you keep them: {places}."
        )
    if shown.snapshots:
        lines.append(f"Snapshots that hold some of it go too: {', '.join(shown.snapshots)}.")
    if shown.also_in:
        lines.append(f"Sessions that hold it still, and keep it: {', '.join(shown.also_in)}.")
    lines.append("Files that were exported before, and copies of the directory, are not changed.")
    return ledger_table(shown.dropped, title="to be forgotten"), "\n".join(lines)


def describe_traces(is_wiped: bool) -> str:
    """The end of a sentence about a deletion: "" if the disk holds no trace of it."""
    if is_wiped:
        return ""
    return (
        "; traces of it stay on disk for now, since another process reads the memories or the disk "
        "is full: the next turn or command wipes them"
    )


def count_lost(store: Store, name: str, snapshot: str) -> int:
    """Number of entries of a session that none of its snapshots has.

    Raises ValueError if the session has no snapshot of that name.
    """
    store.entries(f"{name}@{snapshot}")
    head = store.entries(name)
    kept = [
        _count_common(head, store.entries(f"{name}@{mark.name}"))
        for mark in store.info(name).snapshots
    ]
    return len(head) - max(kept)


def describe_loss(lost: int) -> str:
    """The loss of `count_lost` in a sentence."""
    if lost == 1:
        return "The last entry has no snapshot and would be gone."
    return f"The last {lost:,} entries have no snapshot and would be gone."


def _show_outcome(report: SleepReport) -> str:
    if report.is_rejected:
        return "rejected" if report.is_undone else "rejected, one pass instead"
    if report.dream is not None:
        return f"{count(report.dream.replayed, 'question')} learned"
    return show_changes(report.changes) if report.changes else ""


def _say(row: LedgerRow) -> str:
    if row.kind == "sleep":
        if row.source == DREAM:
            return "(dream)"
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


def _count_common(first: list[Entry], second: list[Entry]) -> int:
    """Number of entries that two ledgers have in common from the start."""
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
