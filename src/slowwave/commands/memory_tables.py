"""Output of the commands for memories, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from slowwave.commands.ledger_view import LedgerRow, ledger_table, sleeps_table
from slowwave.commands.printing import (
    count,
    make_table,
    print_parts,
    printable,
    shorten,
    show_bytes,
    show_time,
)

if TYPE_CHECKING:
    from slowwave.memory.ledger import Entry
    from slowwave.memory.questions import ProbeResult
    from slowwave.memory.sleep_report import Slept, Span
    from slowwave.memory.store_view import Difference, DiskUse, SessionInfo

FEW_ENTRIES = 20


def print_sessions(sessions: Sequence[SessionInfo], disk: DiskUse) -> None:
    """A line for each session, and what all take on disk."""
    lines = [
        (
            info.name,
            f"{info.tokens_seen:,}",
            f"{info.num_sleeps:,}",
            f"{info.window_fill:,} of {info.sleep.window:,}",
            show_time(info.changed),
            ", ".join(mark.name for mark in info.snapshots),
            show_bytes(info.nbytes),
        )
        for info in sessions
    ]
    columns = ("session", "tokens", "sleeps", "window", "last used", "snapshots", "state")
    right = ("tokens", "sleeps", "window", "state")
    table = make_table(columns, lines, right=right, wrapped=("session", "snapshots"))
    line = (
        f"on disk: {show_bytes(disk.catalogue)} of ledgers, {show_bytes(disk.heads)} of states, "
        f"{show_bytes(disk.snapshots)} of snapshots"
    )
    if disk.leftovers:
        line += f", {show_bytes(disk.leftovers)} left by killed processes"
    print_parts(table if sessions else "no sessions yet", line)


def print_ledger(rows: Sequence[LedgerRow], sleeps: Sequence[tuple[Slept, Sequence[Span]]]) -> None:
    """Entries, and the sleeps that consolidated them."""
    print_parts(ledger_table(rows) if rows else "nothing was said yet")
    if sleeps:
        print_parts("", sleeps_table(sleeps))


def print_fields(told: dict[str, Any]) -> None:
    """A line for each field."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for name, value in told.items():
        table.add_row(name, Text(_show(name, value)))
    print_parts(table)


def print_difference(first: str, second: str, difference: Difference) -> None:
    """How much each layer differs, and what only one of two points has read."""
    changes = enumerate(difference.changes, start=1)
    shown = ", ".join(f"{100 * change:,.3g} % in recurrent layer {i}" for i, change in changes)
    print_parts(f"fast weights differ by {shown}")
    for point, entries in ((first, difference.only_first), (second, difference.only_second)):
        _print_only(point, entries)


def print_probe(asked: Sequence[ProbeResult]) -> None:
    """A row for each question: the reply before a sleep, and after one of each number of passes."""
    lines = list[list[str]]()
    for found in asked:
        expected = found.question.answer
        question = found.question.question + (f" ({expected})" if expected else "")
        replies = [(reply.text, reply.is_right) for reply in found.after]
        shown = [_mark(*reply) for reply in [(found.before, found.was_right), *replies]]
        lines.append([printable(question), *shown])
    columns = ["question", "awake", *(f"slept, N = {reply.passes}" for reply in asked[0].after)]
    print_parts(make_table(columns, lines, wrapped=columns))


def _mark(reply: str, is_right: bool | None) -> str:
    mark = {True: "right: ", False: "wrong: ", None: ""}[is_right]
    return mark + shorten(reply, 200)


def _print_only(point: str, entries: Sequence[Entry]) -> None:
    if not entries:
        print_parts(f"nothing is only in {point}")
        return
    print_parts(f"only in {point}:")
    for entry in entries[:FEW_ENTRIES]:
        what = shorten(entry.text, 60)
        if entry.kind == "sleep":
            what = "(dream)" if entry.is_dream else "(sleep)"
        line = f"  {show_time(entry.time)}  {shorten(entry.source, 24)}  {what}"
        print_parts(line)
    if len(entries) > FEW_ENTRIES:
        print_parts(f"  and {len(entries) - FEW_ENTRIES:,} more")


def _show(name: str, value: Any) -> str:
    if name in ("created", "changed"):
        return show_time(value)
    if name == "nbytes":
        return show_bytes(value)
    if name == "snapshots":
        return ", ".join(_show_mark(mark) for mark in value) or "none"
    if name == "gate":
        return "none" if value is None else _show_gate(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if type(value) is int else printable(str(value))


def _show_gate(gate: dict[str, Any]) -> str:
    limits = {name: value for name, value in gate.items() if name.startswith("max_")}
    texts = f"canaries {len(gate['canaries'])}, held-out texts {len(gate['held_out'])}"
    return texts + "".join(f", {name} {value}" for name, value in limits.items())


def _show_mark(mark: Any) -> str:
    if isinstance(mark, str):
        return printable(mark)
    return f"{mark['name']} ({show_time(mark['time'])}, {count(mark['tokens_seen'], 'token')})"
