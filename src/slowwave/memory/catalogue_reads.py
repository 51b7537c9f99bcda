"""The SQL that reads the catalogue, within a transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable

from slowwave.memory.catalogue_rows import (
    BadRow,
    LedgerPage,
    PlacedSleep,
    Point,
    SessionRow,
    Snapshot,
    Source,
    parse_entry,
    parse_owner,
    parse_point,
    parse_slept,
    read_count,
    read_name,
    read_state_file,
    read_text,
    read_time,
)
from slowwave.memory.ledger import Entry
from slowwave.memory.names import UnknownName, is_readable, list_names

# All rows of a statement are fetched before any is looked at: one that is refused would leave the
# statement open, and the catalogue locked, for as long as anybody holds the exception.

# From an entry back to a place, or to the root; it ends even if an entry is before itself.
WAY = """
    WITH RECURSIVE way(id) AS (
        SELECT ? UNION
        SELECT parent FROM entries JOIN way USING (id) WHERE parent IS NOT NULL AND place > ?
    )
"""


def read_session(db: sqlite3.Connection, row: sqlite3.Row) -> SessionRow:
    """A row of the sessions with its head."""
    return SessionRow(
        id=read_count(row, "id"),
        name=read_name(row, "name"),
        created=read_time(row, "created"),
        changed=read_time(row, "changed"),
        owner=parse_owner(row),
        head=read_point(db, read_count(row, "head")),
        before=None if row["before"] is None else read_point(db, read_count(row, "before")),
    )


def read_point(db: sqlite3.Connection, point: int) -> Point:
    """The point with an id."""
    row = db.execute("SELECT * FROM points WHERE id = ?", (point,)).fetchone()
    if row is None:
        raise BadRow(f"point {point} is missing")
    return parse_point(row)


def find_session(db: sqlite3.Connection, name: str) -> SessionRow:
    """A session by its name; raises UnknownName, which lists those there are."""
    sql = "SELECT * FROM sessions WHERE name = ?"
    row = db.execute(sql, (name,)).fetchone() if is_readable(name) else None
    if row is None:
        raise UnknownName(f"no session {name!r:.130}; there are {list_names(read_names(db))}")
    return read_session(db, row)


def read_names(db: sqlite3.Connection) -> list[str]:
    """The names of all sessions, in order."""
    rows = db.execute("SELECT name FROM sessions ORDER BY name").fetchall()
    return [read_name(row, "name") for row in rows]


def has_session(db: sqlite3.Connection, name: str) -> bool:
    """Whether there is a session of this name."""
    sql = "SELECT 1 FROM sessions WHERE name = ?"
    return is_readable(name) and db.execute(sql, (name,)).fetchone() is not None


def find_point(db: sqlite3.Connection, point: str) -> Point:
    """Where "session" or "session@snapshot" is; raises UnknownName, which lists those there are."""
    name, snapshot = split_point(point)
    session = find_session(db, name)
    if snapshot is None:
        return session.head
    return find_snapshot(db, session.id, snapshot).point


def split_point(point: str) -> tuple[str, str | None]:
    """The session and, if one is named, the snapshot of "session@snapshot"."""
    name, at, snapshot = point.partition("@")
    return name, snapshot if at else None


def read_snapshots(db: sqlite3.Connection, session: int) -> list[Snapshot]:
    """All snapshots of the session with an id, oldest first."""
    sql = "SELECT name, time, point FROM snapshots WHERE session = ? ORDER BY time, name"
    rows = db.execute(sql, (session,)).fetchall()
    return [
        Snapshot(
            name=read_name(row, "name"),
            time=read_time(row, "time"),
            point=read_point(db, read_count(row, "point")),
        )
        for row in rows
    ]


def find_snapshot(db: sqlite3.Connection, session: int, name: str) -> Snapshot:
    """A snapshot of the session with an id; raises as `find_session`."""
    snapshots = {snapshot.name: snapshot for snapshot in read_snapshots(db, session)}
    if name not in snapshots:
        raise UnknownName(f"no snapshot {name!r:.130}; there are {list_names([*snapshots])}")
    return snapshots[name]


def read_entries(
    db: sqlite3.Connection, point: Point, start: int = 0, stop: int | None = None
) -> list[Entry]:
    """The ledger up to a point, or its places start..stop."""
    return [*read_keyed_entries(db, point, start, stop).values()]


def read_keyed_entries(
    db: sqlite3.Connection, point: Point, start: int = 0, stop: int | None = None
) -> dict[int, Entry]:
    """As `read_entries`, by ids that are equal where ledgers share an entry."""
    sql = (
        f"{WAY} SELECT entries.* FROM way JOIN entries USING (id) "
        "WHERE place >= ? AND place < ? ORDER BY place"
    )
    stop = point.num_entries if stop is None else min(stop, point.num_entries)
    start = min(start, stop)
    found, places = dict[int, Entry](), list[int]()
    for row in db.execute(sql, (point.entry, start, start, stop)).fetchall():
        found[read_count(row, "id")] = parse_entry(row)
        places.append(read_count(row, "place"))
    # The count comes from the file too: a list of so many places may exceed memory.
    if len(places) != stop - start or places != list(range(start, stop)):
        raise BadRow(f"of the entries {start} to {stop} of point {point.id} some are missing")
    num_tokens = sum(len(entry.tokens) for entry in found.values())
    is_whole = len(found) == point.num_entries
    if num_tokens > point.tokens_seen or (is_whole and num_tokens < point.tokens_seen):
        raise BadRow(f"the entries of point {point.id} have {num_tokens} tokens, not those it saw")
    return found


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
    placed = [
        PlacedSleep(
            read_count(row, "entry"),
            read_count(row, "place"),
            read_time(row, "time"),
            parse_slept(row),
        )
        for row in reversed(found)
    ]
    # Every sleep goes on where the one before it ended, and what none had is the window.
    ends = [each.slept.stop for each in placed]
    starts = [each.slept.start for each in placed]
    slept = point.tokens_seen - point.window_fill
    begin = starts[0] if len(placed) == last else 0
    if [begin, *ends] != [*starts, slept]:
        raise BadRow(f"the sleeps of point {point.id} do not follow each other")
    return placed


def read_page(db: sqlite3.Connection, point: Point, start: int, stop: int) -> LedgerPage:
    """The places start..stop of the ledger up to a point, from there back alone."""
    way = (point.entry, start)
    sql = f"{WAY} SELECT sum(length(tokens)) / 4 FROM way JOIN entries USING (id) WHERE place >= ?"
    num_after = db.execute(sql, (*way, start)).fetchone()[0] or 0
    entries = read_entries(db, point, start, stop)
    begin = point.tokens_seen - num_after
    end = begin + sum(len(entry.tokens) for entry in entries)
    if begin < 0 or end > point.tokens_seen or (start == 0 and begin):
        raise BadRow(f"the entries of point {point.id} have not the tokens that it has seen")
    # No token is consolidated before it is read.
    sql = f"""
        {WAY} SELECT sleeps.* FROM way JOIN entries USING (id) JOIN sleeps ON entry = id
        WHERE start < stop AND start < ? AND stop > ? ORDER BY place, number
    """
    sleeps = [parse_slept(row) for row in db.execute(sql, (*way, end, begin)).fetchall()]
    return LedgerPage(start, begin, entries, sleeps)


def fit_entries(
    db: sqlite3.Connection, point: Point, start: int, stop: int, most_tokens: int
) -> int:
    """Where places from `start` on have more tokens than that, but for the first; or `stop`."""
    sql = (
        f"{WAY} SELECT place, length(tokens) / 4 AS count FROM way JOIN entries USING (id) "
        "WHERE place >= ? AND place < ? ORDER BY place"
    )
    total = 0
    for row in db.execute(sql, (point.entry, start, start, stop)).fetchall():
        place = read_count(row, "place")
        total += read_count(row, "count")
        if total > most_tokens and place > start:
            return place
    return stop


def count_sources(db: sqlite3.Connection, point: Point) -> list[Source]:
    """What was read from where up to a point, in order of appearance."""
    sql = f"""
        {WAY} SELECT source, count(*) AS num_entries, sum(length(tokens)) / 4 AS num_tokens,
        min(time) AS first, max(time) AS last
        FROM way JOIN entries USING (id) WHERE kind != 'sleep' GROUP BY source ORDER BY min(place)
    """
    return [
        Source(
            read_text(row, "source"),
            read_count(row, "num_entries"),
            read_count(row, "num_tokens"),
            read_time(row, "first"),
            read_time(row, "last"),
        )
        for row in db.execute(sql, (point.entry, 0)).fetchall()
    ]


def read_carriers(db: sqlite3.Connection, entries: Iterable[int]) -> list[tuple[str, str | None]]:
    """(session, None) for heads, (session, snapshot) for snapshots, that have any of some entries.

    Or a copy of one, as what was imported or re-slept has.
    """
    sql = """
        WITH RECURSIVE below(id) AS (
            SELECT twin.id FROM entries JOIN entries AS twin USING (time, kind, source, text)
            WHERE entries.id IN (SELECT value FROM json_each(?))
            UNION SELECT entries.id FROM entries JOIN below ON parent = below.id
        ), named AS (
            SELECT name AS session, NULL AS snapshot, head AS point FROM sessions UNION ALL
            SELECT sessions.name, snapshots.name, point
            FROM snapshots JOIN sessions ON sessions.id = session
        )
        SELECT session, snapshot FROM named JOIN points ON points.id = point
        WHERE entry IN below ORDER BY session, snapshot
    """
    found = db.execute(sql, (json.dumps([*entries]),)).fetchall()
    return [
        (
            read_name(row, "session"),
            None if row["snapshot"] is None else read_name(row, "snapshot"),
        )
        for row in found
    ]


def read_file_names(db: sqlite3.Connection) -> dict[str, bool]:
    """Every state file that is named, and whether a session stands there or did a turn ago."""
    sql = """
        SELECT file,
            EXISTS (SELECT 1 FROM sessions WHERE head = points.id)
            OR EXISTS (SELECT 1 FROM sessions WHERE before = points.id) AS is_head
        FROM points WHERE file IS NOT NULL
    """
    found = dict[str, bool]()
    for row in db.execute(sql).fetchall():
        file = read_state_file(row, "file")
        assert file is not None
        found[file] = bool(row["is_head"])
    return found


def read_ids(db: sqlite3.Connection) -> set[int]:
    """The ids of all sessions."""
    return {read_count(row, "id") for row in db.execute("SELECT id FROM sessions").fetchall()}


def count_wipes(db: sqlite3.Connection) -> tuple[int, int]:
    """How often it was asked for, and up to which of these it is done."""
    found = db.execute("SELECT asked, done FROM wipes").fetchall()
    if len(found) != 1:
        raise BadRow("the count of wipes is missing")
    asked, done = (read_count(found[0], column) for column in ("asked", "done"))
    if done > asked:
        raise BadRow("more wipes are done than were asked for")
    return asked, done
