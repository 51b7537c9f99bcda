"""The SQL that deletes what nothing leads to, and that keeps count of what is to be wiped."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from slowwave.memory.catalogue_rows import BadRow, read_count, read_state_file


def drop_point(db: sqlite3.Connection, point: int) -> list[str]:
    """Deletes a point where no session stands, or did a turn ago, and that is no snapshot.

    Returns its file if it had one.
    """
    removed = db.execute(
        "DELETE FROM points WHERE id = ?1 "
        "AND NOT EXISTS (SELECT 1 FROM sessions WHERE head = ?1) "
        "AND NOT EXISTS (SELECT 1 FROM sessions WHERE before = ?1) "
        "AND NOT EXISTS (SELECT 1 FROM snapshots WHERE point = ?1) RETURNING file",
        (point,),
    )
    return _read_files(removed)


def drop_points(db: sqlite3.Connection) -> list[str]:
    """As `drop_point`, of all points."""
    removed = db.execute(
        "DELETE FROM points WHERE id NOT IN (SELECT head FROM sessions UNION "
        "SELECT before FROM sessions WHERE before IS NOT NULL UNION "
        "SELECT point FROM snapshots) RETURNING file"
    )
    return _read_files(removed)


def drop_entries(db: sqlite3.Connection, most: int) -> int:
    """Deletes entries that lead to no point, so many at most (-1 is all); returns how many."""
    deleted = db.execute(
        """
        WITH RECURSIVE kept(id) AS (
            SELECT entry FROM points WHERE entry IS NOT NULL UNION
            SELECT parent FROM entries JOIN kept USING (id) WHERE parent IS NOT NULL
        )
        DELETE FROM entries WHERE id IN (
            SELECT id FROM entries WHERE id NOT IN kept ORDER BY place DESC LIMIT ?
        ) RETURNING id
        """,
        (most,),
    )
    return len(deleted.fetchall())


def ask_to_wipe(db: sqlite3.Connection) -> None:
    """Notes that something was deleted, whose traces are to be wiped from the file."""
    if db.execute("UPDATE wipes SET asked = asked + 1").rowcount != 1:
        raise BadRow("the count of wipes is missing")


def count_wipes(db: sqlite3.Connection) -> tuple[int, int]:
    """How often it was asked for, and up to which of these it is done."""
    found = db.execute("SELECT asked, done FROM wipes").fetchall()
    if len(found) != 1:
        raise BadRow("the count of wipes is missing")
    asked, done = (read_count(found[0], column) for column in ("asked", "done"))
    if done > asked:
        raise BadRow("more wipes are done than were asked for")
    return asked, done


def end_wipe(db: sqlite3.Connection, asked: int) -> None:
    """Notes that it is done up to a count; what was deleted since then is yet to be wiped."""
    db.execute("UPDATE wipes SET done = max(done, ?)", (asked,))


def _read_files(rows: Iterable[sqlite3.Row]) -> list[str]:
    files = [read_state_file(row, "file") for row in [*rows]]
    return [file for file in files if file is not None]
