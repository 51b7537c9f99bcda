"""Rows of the catalogue as what they stand for; raises BadRow where they are none of ours."""

from __future__ import annotations

import sqlite3
from typing import get_args

import numpy as np
from pydantic import TypeAdapter

from slowwave.memory import row_checks as check
from slowwave.memory.catalogue_types import Owner, Point
from slowwave.memory.entry_checks import check_entry
from slowwave.memory.ledger import Entry, EntryKind, Finish
from slowwave.memory.provenance import Slept
from slowwave.memory.row_checks import BadRow
from slowwave.memory.sleep_report import SleepReport
from slowwave.runtime.chat import Role
from slowwave.storage.json_files import parse_json

REPORT = TypeAdapter(SleepReport)
KINDS: tuple[EntryKind, ...] = get_args(EntryKind)
ROLES: tuple[Role | None, ...] = (None, *get_args(Role))
FINISHES: tuple[Finish | None, ...] = (None, *get_args(Finish))


def parse_owner(row: sqlite3.Row) -> Owner:
    """What a row of the sessions was read with."""
    owner = Owner(
        model=check.text(row, "model"),
        tokenizer=check.text(row, "tokenizer"),
        sleep=check.text(row, "sleep"),
        gate=None if row["gate"] is None else check.text(row, "gate"),
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
        id=check.whole(row, "id"),
        entry=check.optional(row, "entry"),
        file=check.state_file(row, "file"),
        num_entries=check.whole(row, "num_entries"),
        tokens_seen=check.whole(row, "tokens_seen"),
        num_sleeps=check.whole(row, "num_sleeps"),
        window_fill=check.whole(row, "window_fill"),
    )
    is_empty = point.entry is None
    if is_empty != (point.num_entries == 0) or (point.file is None and not is_empty):
        raise BadRow(f"point {point.id} has no entry or no file")
    if point.num_sleeps + point.window_fill > point.tokens_seen or (is_empty and point.tokens_seen):
        raise BadRow(f"the counts of point {point.id} cannot be")
    return point


def parse_entry(row: sqlite3.Row) -> Entry:
    """A row of the entries."""
    tokens = check.blob(row, "tokens")
    if len(tokens) % 4:
        raise BadRow(f"the tokens of entry {row['id']} are cut")
    entry = Entry(
        kind=check.one_of(KINDS, row, "kind"),
        time=check.moment(row, "time"),
        source=check.text(row, "source"),
        text=check.text(row, "text"),
        tokens=tuple(np.frombuffer(tokens, "<u4").tolist()),
        passes=check.optional(row, "passes"),
        role=check.one_of(ROLES, row, "role"),
        said=check.text(row, "said"),
        finish=check.one_of(FINISHES, row, "finish"),
        request=check.text(row, "request"),
    )
    try:
        check_entry(entry)
    except ValueError as error:
        raise BadRow(f"entry {row['id']}: {error}") from None
    return entry


def parse_slept(row: sqlite3.Row) -> Slept:
    """A row of the sleeps."""
    start, stop, entry = (check.whole(row, column) for column in ("start", "stop", "entry"))
    try:
        report = REPORT.validate_python(parse_json(check.text(row, "report")))
    except ValueError:
        raise BadRow(f"the report of a sleep in entry {entry} is none") from None
    if report.number != row["number"] or report.num_evicted != stop - start:
        raise BadRow(f"a sleep in entry {entry} is not that of its report")
    return Slept(report, start, stop)
