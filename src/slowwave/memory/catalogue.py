"""The catalogue of a memory store: sessions, ledgers, sleeps and snapshots, in one SQLite file.

Ledgers form a tree. An entry never changes and names the one before it, so a ledger is the way from
its last entry back to the root, and forks and snapshots share what they have in common.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from slowwave.memory.catalogue_database import Database
from slowwave.memory.catalogue_notes import copy_notes, follow_rewrite
from slowwave.memory.catalogue_reads import (
    count_wipes,
    find_session,
    find_snapshot,
    has_session,
    read_keyed_entries,
    read_point,
    read_snapshots,
)
from slowwave.memory.catalogue_rows import (
    BadRow,
    Branch,
    Planted,
    Point,
    Reached,
    SessionRow,
    Snapshot,
    Step,
    read_state_file,
)
from slowwave.memory.names import TakenName
from slowwave.memory.owner import Owner
from slowwave.memory.sleep_report import SleepReport
from slowwave.storage.files import FULL

DROP_SNAPSHOT = "DELETE FROM snapshots WHERE session = ? AND name = ?"
FEW = 16
"""Entries that are deleted at a time where the disk is full."""


class Catalogue(Database):
    """Every method is one transaction, or a part of the one it is called in (`writing`).

    Threads and processes wait for each other. Who may change a session is decided elsewhere
    (`memory/private_store.py`). Where the file cannot be written it is read as it was when it was
    opened. Raises OSError if the disk is full, read-only or fails, ValueError if the file is
    damaged or another program's.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._wiped: int | None = None
        """As of how many deletions the file has no traces."""

    def create(self, name: str, owner: Owner, origin: Point | None = None) -> SessionRow:
        """A new session, empty or at a point of another; raises ValueError if the name is taken."""
        with self.writing() as db:
            if has_session(db, name):
                raise TakenName(f"session {name!r} is there already; choose another name")
            head = origin or insert_point(db, None, 0, Reached(None, 0, 0, 0))
            now = time.time()
            db.execute(
                "INSERT INTO sessions (name, created, changed, model, tokenizer, sleep, gate, head)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (name, now, now, *owner, head.id),
            )
            return find_session(db, name)

    def fork(self, source: SessionRow, name: str, origin: Point) -> SessionRow:
        """As `create`, at a point of a session, whose notes and episodes come along."""
        with self.writing() as db:
            made = self.create(name, source.owner, origin)
            copy_notes(db, source.id, origin, made.id)
            return made

    def advance(
        self,
        session: SessionRow,
        steps: Sequence[Step],
        reached: Reached,
        *,
        instead: bool = False,
    ) -> tuple[SessionRow, list[str]]:
        """Enters a turn, or with `instead` in place of the last one, which follows `before`.

        Returns the session and the state files that nothing names any more.
        """
        with self.writing() as db:
            start = session.before if instead else session.head
            assert start is not None
            head = append(db, start.entry, start.num_entries, steps, reached)
            # A sleep between turns is none that could be taken anew.
            is_turn = any(step.entry.kind != "sleep" for step in steps)
            moved = move(db, session, head, start if is_turn else session.before)
            old = [point.id for point in (session.head, session.before) if point is not None]
            removed = [file for point in old for file in drop_point(db, point)]
            if instead:
                ask_to_wipe(db)
                drop_entries(db, -1)
            return moved, removed

    def snapshot(self, session: SessionRow, name: str) -> Snapshot:
        """Names the head of a session; raises ValueError if the name is taken."""
        with self.writing() as db:
            if any(name == taken.name for taken in read_snapshots(db, session.id)):
                raise TakenName(f"snapshot {name!r} is there already; choose another name")
            insert_snapshot(db, session.id, name, time.time(), session.head)
            return find_snapshot(db, session.id, name)

    def roll_back(self, session: SessionRow, snapshot: str) -> tuple[SessionRow, list[str]]:
        """Makes a snapshot the head. Returns as `advance`; entries are left to `collect`."""
        with self.writing() as db:
            point = find_snapshot(db, session.id, snapshot).point
            return move(db, session, point), self._drop_points(db)

    def rewrite(
        self,
        session: SessionRow,
        places: Sequence[int],
        steps: Iterable[Step],
        reached: Reached,
        snapshots: Iterable[str],
    ) -> tuple[SessionRow, list[str]]:
        """Leaves the entries at some places alone, and drops snapshots; as `roll_back`.

        steps: those of them, anew, that come after the first place which is left out; sleeps among
        them may have lapsed.
        """
        with self.writing() as db:
            before = read_keyed_entries(db, session.head)
            ids, kept = [*before], count_leading(places)
            head = append(db, ids[kept - 1] if kept else None, kept, steps, reached)
            moved = move(db, session, head)
            came = [ids[place] for place in places[kept:] if before[ids[place]].kind != "sleep"]
            anew = read_keyed_entries(db, head, kept)
            went = [id_ for id_, entry in anew.items() if entry.kind != "sleep"]
            follow_rewrite(db, session.id, ids[kept:], dict(zip(came, went, strict=True)))
            for name in snapshots:
                db.execute(DROP_SNAPSHOT, (session.id, name))
            return moved, self._drop_points(db)

    def drop_snapshot(self, session: SessionRow, name: str) -> list[str]:
        """Forgets a name; returns the state files that nothing names any more.

        On a full disk it takes the reserve. Entries are left to `collect`.
        """

        def drop() -> list[str]:
            with self.writing() as db:
                find_snapshot(db, session.id, name)
                db.execute(DROP_SNAPSHOT, (session.id, name))
                return self._drop_points(db)

        return self.insist(drop)

    def delete(self, session: SessionRow) -> list[str]:
        """Removes a session with its snapshots; as `drop_snapshot`."""

        def delete() -> list[str]:
            with self.writing() as db:
                db.execute("DELETE FROM sessions WHERE id = ?", (session.id,))
                return self._drop_points(db)

        return self.insist(delete)

    def replace_file(self, point: Point, file: str) -> None:
        """Names another state file for a point."""
        with self.writing() as db:
            db.execute("UPDATE points SET file = ? WHERE id = ?", (file, point.id))

    def plant(
        self,
        session: SessionRow,
        branches: Sequence[Branch],
        head: Planted,
        snapshots: Iterable[tuple[str, float, Planted]],
    ) -> SessionRow:
        """Fills a new session with a tree of entries, and names points in it."""
        with self.writing() as db:
            ids, places = list[int](), list[int]()
            for parent, step in branches:
                places.append(0 if parent is None else places[parent] + 1)
                above = None if parent is None else ids[parent]
                ids.append(insert_step(db, above, places[-1], step))

            def insert(planted: Planted) -> Point:
                last, reached = planted
                if last is None:
                    return insert_point(db, None, 0, reached)
                return insert_point(db, ids[last], places[last] + 1, reached)

            for name, named, planted in snapshots:
                insert_snapshot(db, session.id, name, named, insert(planted))
            moved = move(db, session, insert(head))
            drop_point(db, session.head.id)
            return moved

    # Removing what was deleted.

    def collect(self) -> None:
        """Deletes the entries that no point leads to: on a full disk a few at a time."""
        try:
            with self.writing() as db:
                drop_entries(db, -1)
        except OSError as error:
            if error.errno not in FULL:
                raise
            while self.insist(self._collect_few):
                self.empty_log()

    def wipe(self) -> bool:
        """Overwrites what was deleted, in the file and its log; returns whether that is done.

        It is not while another process reads what was there. Raises OSError where there is no room
        for as much as the file takes.
        """
        with self.reading() as db:
            asked, _ = count_wipes(db)
        if asked != self._wiped:
            if not self.empty_log():
                return False
            self.insist(self.rewrite_file)
            if not self.empty_log():
                return False
            self._wiped = asked
        return True

    def end_wipe(self, asked: int) -> None:
        """Notes that all traces of so many deletions are gone."""

        def end() -> None:
            with self.writing() as db:
                db.execute("UPDATE wipes SET done = max(done, ?)", (asked,))

        self.insist(end)
        self.reserve.make()

    def _collect_few(self) -> int:
        with self.writing() as db:
            return drop_entries(db, FEW)

    def _drop_points(self, db: sqlite3.Connection) -> list[str]:
        ask_to_wipe(db)
        return drop_points(db)


def count_leading(places: Sequence[int]) -> int:
    """How many places, from the first on, are those of a whole ledger."""
    return next((at for at, place in enumerate(places) if at != place), len(places))


def insert_snapshot(
    db: sqlite3.Connection, session: int, name: str, named: float, point: Point
) -> None:
    """Names a point."""
    values = (session, name, named, point.id)
    db.execute("INSERT INTO snapshots VALUES (?, ?, ?, ?)", values)


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


def _read_files(rows: Iterable[sqlite3.Row]) -> list[str]:
    files = [read_state_file(row, "file") for row in [*rows]]
    return [file for file in files if file is not None]
