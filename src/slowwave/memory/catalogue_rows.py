"""What the catalogue keeps, and its rows as what they stand for.

SQLite lets any column hold anything, and a catalogue may come from elsewhere: each column is read
as what this package writes there, and BadRow is raised where it is none.
"""

from __future__ import annotations

import dataclasses
import re
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple, TypeVar, get_args

import numpy as np
from pydantic import TypeAdapter

from slowwave.memory.ledger import Entry, EntryKind, Finish, check_entry, is_moment
from slowwave.memory.owner import Owner
from slowwave.memory.sleep_report import SleepReport, Slept
from slowwave.runtime.config import Role
from slowwave.storage.json_files import parse_json
from slowwave.storage.memory_file import MOST_TOKENS


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Where a session stood after a turn: its ledger up to there, and its state."""

    id: int
    entry: int | None
    """The last entry; None if nothing was read yet."""
    file: str | None
    """The state file; None if no token was read yet."""
    num_entries: int
    tokens_seen: int
    num_sleeps: int
    window_fill: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """A session as the catalogue has it."""

    id: int
    name: str
    created: float
    """Seconds since 1970, as `changed`."""
    changed: float
    owner: Owner
    head: Point
    before: Point | None
    """Where it stood before its last turn, which can be taken anew from there; None if nowhere."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A point of a session that was given a name."""

    name: str
    time: float
    """When it was named, in seconds since 1970."""
    point: Point


class Step(NamedTuple):
    """An entry and the sleeps that happened in it."""

    entry: Entry
    sleeps: list[Slept]


class Reached(NamedTuple):
    """The state after some steps, and its file."""

    file: str | None
    tokens_seen: int
    num_sleeps: int
    window_fill: int


class PlacedSleep(NamedTuple):
    """A sleep, and the entry that it happened in: its id, its place in the ledger and its time."""

    entry: int
    place: int
    time: float
    slept: Slept


class LedgerPage(NamedTuple):
    """Entries of a ledger, one after another."""

    place: int
    """Of the first of them in the ledger."""
    start: int
    """Tokens of the stream before it."""
    entries: list[Entry]
    sleeps: list[Slept]
    """Those that consolidated something of it, in order."""


class Source(NamedTuple):
    """What was read from a source, and when at first and at last, in seconds since 1970."""

    source: str
    num_entries: int
    num_tokens: int
    first: float
    last: float


Branch = tuple[int | None, Step]
"""The number of the step before it, if any, and a step."""
Planted = tuple[int | None, Reached]
"""The number of the last step, if any, and what it reached."""


Value = TypeVar("Value")
_STATE_FILE = re.compile(r"[0-9]{1,19}-[0-9a-f]{32}\.safetensors", re.ASCII)


class BadRow(ValueError):
    """A row is not what this package writes; what and why, in half a sentence."""


def read_count(row: sqlite3.Row, column: str) -> int:
    """An id or a count."""
    value = row[column]
    if type(value) is not int or not 0 <= value <= MOST_TOKENS:
        raise _unfit(column, value, "is no count")
    return value


def read_time(row: sqlite3.Row, column: str) -> float:
    """A time that clocks and calendars can show."""
    value = row[column]
    if type(value) is not float or not is_moment(value):
        raise _unfit(column, value, "is no time")
    return value


def read_text(row: sqlite3.Row, column: str) -> str:
    value = row[column]
    if type(value) is not str:
        raise _unfit(column, value, "is no text")
    return value


def read_choice(values: Sequence[Value], row: sqlite3.Row, column: str) -> Value:
    """One of a few texts, or None where that is among them."""
    if row[column] not in values:
        raise _unfit(column, row[column], "is not known")
    return row[column]


def read_name(row: sqlite3.Row, column: str) -> str:
    """A name that can be printed and told from a point."""
    value = read_text(row, column)
    if not value.isprintable() or not 0 < len(value) <= 128 or "@" in value:
        raise _unfit(column, value, "is no name")
    return value


def read_state_file(row: sqlite3.Row, column: str) -> str | None:
    """The name of a state file as the store makes them, or None."""
    value = row[column]
    if value is not None and not is_state_file(value):
        raise _unfit(column, value, "is no name of a state file")
    return value


def read_bytes(row: sqlite3.Row, column: str) -> bytes:
    value = row[column]
    if type(value) is not bytes:
        raise _unfit(column, value, "is no bytes")
    return value


def read_optional_count(row: sqlite3.Row, column: str) -> int | None:
    """As `read_count`, or None."""
    return None if row[column] is None else read_count(row, column)


def is_state_file(file: object) -> bool:
    """Whether this is a name as the store makes them: no path leads out of its folder."""
    return type(file) is str and _STATE_FILE.fullmatch(file) is not None


def _unfit(column: str, value: object, why: str) -> BadRow:
    return BadRow(f"{column} {value!r:.80} {why}")


REPORT = TypeAdapter(SleepReport)
KINDS: tuple[EntryKind, ...] = get_args(EntryKind)
ROLES: tuple[Role | None, ...] = (None, *get_args(Role))
FINISHES: tuple[Finish | None, ...] = (None, *get_args(Finish))


def parse_owner(row: sqlite3.Row) -> Owner:
    """What a row of the sessions was read with."""
    owner = Owner(
        model=read_text(row, "model"),
        tokenizer=read_text(row, "tokenizer"),
        sleep=read_text(row, "sleep"),
        gate=None if row["gate"] is None else read_text(row, "gate"),
    )
    try:
        owner.parse_sleep()
        owner.parse_gate()
    except ValueError as error:
        raise BadRow(f"session {row['name']!r:.80}: {error}") from None
    return owner


def parse_point(row: sqlite3.Row) -> Point:
    """A row of the points."""
    point = Point(
        id=read_count(row, "id"),
        entry=read_optional_count(row, "entry"),
        file=read_state_file(row, "file"),
        num_entries=read_count(row, "num_entries"),
        tokens_seen=read_count(row, "tokens_seen"),
        num_sleeps=read_count(row, "num_sleeps"),
        window_fill=read_count(row, "window_fill"),
    )
    is_empty = point.entry is None
    if is_empty != (point.num_entries == 0) or (point.file is None and point.tokens_seen):
        raise BadRow(f"point {point.id} has no entry or no file")
    if point.num_sleeps + point.window_fill > point.tokens_seen or (is_empty and point.tokens_seen):
        raise BadRow(f"the counts of point {point.id} cannot be")
    return point


def parse_entry(row: sqlite3.Row) -> Entry:
    """A row of the entries."""
    tokens = read_bytes(row, "tokens")
    if len(tokens) % 4:
        raise BadRow(f"the tokens of entry {row['id']} are cut")
    entry = Entry(
        kind=read_choice(KINDS, row, "kind"),
        time=read_time(row, "time"),
        source=read_text(row, "source"),
        text=read_text(row, "text"),
        tokens=tuple(np.frombuffer(tokens, "<u4").tolist()),
        passes=read_optional_count(row, "passes"),
        role=read_choice(ROLES, row, "role"),
        said=read_text(row, "said"),
        finish=read_choice(FINISHES, row, "finish"),
        request=read_text(row, "request"),
    )
    try:
        check_entry(entry)
    except ValueError as error:
        raise BadRow(f"entry {row['id']}: {error}") from None
    return entry


def parse_slept(row: sqlite3.Row) -> Slept:
    """A row of the sleeps."""
    start, stop, entry = (read_count(row, column) for column in ("start", "stop", "entry"))
    try:
        report = REPORT.validate_python(parse_json(read_text(row, "report")))
    except ValueError:
        raise BadRow(f"the report of a sleep in entry {entry} is none") from None
    if report.number != row["number"] or report.num_evicted != stop - start:
        raise BadRow(f"a sleep in entry {entry} is not that of its report")
    return Slept(report, start, stop)
