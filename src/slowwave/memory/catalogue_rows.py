"""What the catalogue keeps, and the SQL that reads and writes it within a transaction."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import time
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from pydantic import TypeAdapter

from slowwave.memory.ledger import Entry
from slowwave.memory.names import is_readable
from slowwave.memory.provenance import Slept
from slowwave.memory.refusals import UnknownName, list_names
from slowwave.memory.sleep_report import SleepReport

REPORT = TypeAdapter(SleepReport)

# From an entry back to a place, or to the root.
WAY = """
    WITH RECURSIVE way(id) AS (
        SELECT ? UNION ALL
        SELECT parent FROM entries JOIN way USING (id) WHERE parent IS NOT NULL AND place > ?
    )
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Where a session stood after a turn: its ledger up to there, and its state."""

    id: int
    entry: int | None
    """The last entry; None if nothing was read yet."""
    file: str | None
    """The state file; None if nothing was read yet."""
    num_entries: int
    tokens_seen: int
    num_sleeps: int
    window_fill: int


class Owner(NamedTuple):
    """What a session was read with, and is read on with."""

    model: str
    """Fingerprints of model and tokenizer."""
    tokenizer: str
    sleep: str
    """The sleep settings as canonical JSON."""
    gate: str | None = None
    """The gate as canonical JSON; None if there is none."""


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


class Piece(NamedTuple):
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


def read_sessions(db: sqlite3.Connection) -> list[SessionRow]:
    """All sessions, by name."""
    found = db.execute("SELECT * FROM sessions ORDER BY name").fetchall()
    return [read_session(db, row) for row in found]


def read_session(db: sqlite3.Connection, row: sqlite3.Row) -> SessionRow:
    """A row of the sessions with its head."""
    return SessionRow(
        id=row["id"],
        name=row["name"],
        created=row["created"],
        changed=row["changed"],
        owner=Owner(row["model"], row["tokenizer"], row["sleep"], row["gate"]),
        head=read_point(db, row["head"]),
        before=None if row["before"] is None else read_point(db, row["before"]),
    )


def read_point(db: sqlite3.Connection, point: int) -> Point:
    return Point(**db.execute("SELECT * FROM points WHERE id = ?", (point,)).fetchone())


def find_session(db: sqlite3.Connection, name: str) -> SessionRow:
    sql = "SELECT * FROM sessions WHERE name = ?"
    row = db.execute(sql, (name,)).fetchone() if is_readable(name) else None
    if row is None:
        names = [each["name"] for each in db.execute("SELECT name FROM sessions ORDER BY name")]
        raise UnknownName(f"no session {name!r}; there are {list_names(names)}")
    return read_session(db, row)


def has_session(db: sqlite3.Connection, name: str) -> bool:
    """Whether there is a session of this name."""
    sql = "SELECT 1 FROM sessions WHERE name = ?"
    return is_readable(name) and db.execute(sql, (name,)).fetchone() is not None


def read_snapshots(db: sqlite3.Connection, session: int) -> list[Snapshot]:
    sql = "SELECT name, time, point FROM snapshots WHERE session = ? ORDER BY time, name"
    rows = db.execute(sql, (session,)).fetchall()
    return [Snapshot(**{**row, "point": read_point(db, row["point"])}) for row in rows]


def find_snapshot(db: sqlite3.Connection, session: int, name: str) -> Snapshot:
    snapshots = {snapshot.name: snapshot for snapshot in read_snapshots(db, session)}
    if name not in snapshots:
        raise UnknownName(f"no snapshot {name!r}; there are {list_names([*snapshots])}")
    return snapshots[name]


def drop_snapshot(db: sqlite3.Connection, session: int, name: str) -> None:
    db.execute("DELETE FROM snapshots WHERE session = ? AND name = ?", (session, name))


def insert_snapshot(
    db: sqlite3.Connection, session: int, name: str, named: float, point: Point
) -> None:
    """Names a point."""
    values = (session, name, named, point.id)
    db.execute("INSERT INTO snapshots VALUES (?, ?, ?, ?)", values)


def read_entries(
    db: sqlite3.Connection, point: Point, *, start: int = 0, stop: int | None = None
) -> dict[int, Entry]:
    """The ledger up to a point, or its places start..stop, by id, in order."""
    sql = (
        f"{WAY} SELECT entries.* FROM way JOIN entries USING (id) "
        "WHERE place >= ? AND place < ? ORDER BY place"
    )
    stop = point.num_entries if stop is None else stop
    return {
        row["id"]: Entry(
            kind=row["kind"],
            time=row["time"],
            source=row["source"],
            text=row["text"],
            tokens=tuple(np.frombuffer(row["tokens"], "<u4").tolist()),
            passes=row["passes"],
            role=row["role"],
            said=row["said"],
            finish=row["finish"],
            request=row["request"],
        )
        for row in db.execute(sql, (point.entry, start, start, stop))
    }


def read_sleeps(
    db: sqlite3.Connection, point: Point, *, last: int | None = None
) -> list[PlacedSleep]:
    """The sleeps up to a point, or the last so many, in order."""
    sql = f"""
        {WAY} SELECT sleeps.*, place, time
        FROM way JOIN entries USING (id) JOIN sleeps ON entry = id
        ORDER BY place DESC, number DESC LIMIT ?
    """
    found = db.execute(sql, (point.entry, 0, -1 if last is None else last)).fetchall()
    return [
        PlacedSleep(row["entry"], row["place"], row["time"], _read_slept(row))
        for row in reversed(found)
    ]


def read_piece(db: sqlite3.Connection, point: Point, start: int, stop: int) -> Piece:
    """The places start..stop of the ledger up to a point, from there back alone."""
    way = (point.entry, start)
    sql = f"{WAY} SELECT sum(length(tokens)) / 4 FROM way JOIN entries USING (id) WHERE place >= ?"
    num_after = db.execute(sql, (*way, start)).fetchone()[0] or 0
    entries = list(read_entries(db, point, start=start, stop=stop).values())
    begin = point.tokens_seen - num_after
    end = begin + sum(len(entry.tokens) for entry in entries)
    # No token is consolidated before it is read.
    sql = f"""
        {WAY} SELECT sleeps.* FROM way JOIN sleeps ON entry = id
        WHERE start < stop AND start < ? AND stop > ? ORDER BY stop
    """
    sleeps = [_read_slept(row) for row in db.execute(sql, (*way, end, begin))]
    return Piece(start, begin, entries, sleeps)


def count_sources(db: sqlite3.Connection, point: Point) -> list[Source]:
    """What was read from where up to a point, in order of appearance."""
    sql = f"""
        {WAY} SELECT source, count(*), sum(length(tokens)) / 4, min(time), max(time)
        FROM way JOIN entries USING (id) WHERE kind != 'sleep' GROUP BY source ORDER BY min(place)
    """
    return [Source(*row) for row in db.execute(sql, (point.entry, 0))]


def _read_slept(row: sqlite3.Row) -> Slept:
    return Slept(REPORT.validate_json(row["report"]), row["start"], row["stop"])


def read_carriers(db: sqlite3.Connection, entry: int) -> list[tuple[str, str | None]]:
    """(session, None) for heads and (session, snapshot) for snapshots that an entry leads to."""
    sql = """
        WITH RECURSIVE below(id) AS (
            SELECT ? UNION ALL SELECT entries.id FROM entries JOIN below ON parent = below.id
        ), named AS (
            SELECT name AS session, NULL AS snapshot, head AS point FROM sessions UNION ALL
            SELECT sessions.name, snapshots.name, point
            FROM snapshots JOIN sessions ON sessions.id = session
        )
        SELECT session, snapshot FROM named JOIN points ON points.id = point
        WHERE entry IN below ORDER BY session, snapshot
    """
    return [(row["session"], row["snapshot"]) for row in db.execute(sql, (entry,))]


def read_file_names(db: sqlite3.Connection) -> dict[str, bool]:
    """Every state file that is named, and whether a session stands there or did a turn ago."""
    sql = """
        SELECT file, EXISTS (SELECT 1 FROM sessions WHERE points.id IN (head, before)) AS is_head
        FROM points WHERE file IS NOT NULL
    """
    return {row["file"]: bool(row["is_head"]) for row in db.execute(sql)}


def append(
    db: sqlite3.Connection,
    parent: int | None,
    place: int,
    steps: Iterable[Step],
    reached: Reached,
) -> Point:
    """Inserts steps after an entry, and the point at their end."""
    for step in steps:
        parent, place = insert_step(db, parent, place, step), place + 1
    return insert_point(db, parent, place, reached)


def insert_step(db: sqlite3.Connection, parent: int | None, place: int, step: Step) -> int:
    entry = step.entry
    tokens = np.asarray(entry.tokens, "<u4").tobytes()
    cursor = db.execute(
        "INSERT INTO entries "
        "(parent, place, tokens, kind, time, source, text, passes, role, said, finish, request) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(parent, place, tokens),
            *(entry.kind, entry.time, entry.source, entry.text, entry.passes),
            *(entry.role, entry.said, entry.finish, entry.request),
        ),
    )
    assert cursor.lastrowid is not None
    db.executemany(
        "INSERT INTO sleeps VALUES (?, ?, ?, ?, ?)",
        [
            (cursor.lastrowid, s.report.number, s.start, s.stop, dump_report(s.report))
            for s in step.sleeps
        ],
    )
    return cursor.lastrowid


def dump_report(report: SleepReport) -> str:
    return json.dumps(dataclasses.asdict(report), separators=(",", ":"))


def insert_point(
    db: sqlite3.Connection, entry: int | None, num_entries: int, reached: Reached
) -> Point:
    cursor = db.execute(
        "INSERT INTO points (entry, file, num_entries, tokens_seen, num_sleeps, window_fill) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (entry, reached.file, num_entries, *reached[1:]),
    )
    assert cursor.lastrowid is not None
    return read_point(db, cursor.lastrowid)


def move(
    db: sqlite3.Connection, session: SessionRow, head: Point, before: Point | None = None
) -> SessionRow:
    """Makes a point the head, if the session still stands where its holder believes."""
    moved = db.execute(
        "UPDATE sessions SET head = ?, before = ?, changed = ? WHERE id = ? AND head = ?",
        (head.id, before.id if before else None, time.time(), session.id, session.head.id),
    )
    if moved.rowcount != 1:
        raise ValueError(f"session {session.name!r} was changed from elsewhere; open it again")
    return find_session(db, session.name)


def drop_points(db: sqlite3.Connection, points: Iterable[Point | None]) -> list[str]:
    """Deletes those of some points that nothing names any more; returns their files."""
    sql = """
        DELETE FROM points WHERE id = ?1
        AND NOT EXISTS (SELECT 1 FROM sessions WHERE head = ?1)
        AND NOT EXISTS (SELECT 1 FROM sessions WHERE before = ?1)
        AND NOT EXISTS (SELECT 1 FROM snapshots WHERE point = ?1) RETURNING file
    """
    files = (read_files(db.execute(sql, (point.id,))) for point in points if point)
    return [file for each in files for file in each]


def collect(db: sqlite3.Connection) -> list[str]:
    """Deletes points and entries that no session and no snapshot leads to; returns their files."""
    removed = read_files(
        db.execute(
            "DELETE FROM points WHERE id NOT IN (SELECT head FROM sessions UNION "
            "SELECT before FROM sessions WHERE before IS NOT NULL UNION "
            "SELECT point FROM snapshots) RETURNING file"
        )
    )
    db.execute(
        "WITH RECURSIVE kept(id) AS (SELECT entry FROM points WHERE entry IS NOT NULL UNION "
        "SELECT parent FROM entries JOIN kept USING (id) WHERE parent IS NOT NULL) "
        "DELETE FROM entries WHERE id NOT IN kept"
    )
    return removed


def read_files(rows: Iterable[sqlite3.Row]) -> list[str]:
    return [row["file"] for row in rows if row["file"] is not None]
