"""The catalogue of a memory store: sessions, ledgers, sleeps and snapshots, in one SQLite file.

Ledgers form a tree. An entry never changes and names the one before it, so a ledger is the way from
its last entry back to the root, and forks and snapshots share what they have in common.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from slowwave.memory import catalogue_deletion as deletion
from slowwave.memory import catalogue_reads as rows
from slowwave.memory.catalogue_database import Database, is_full
from slowwave.memory.catalogue_rows import (
    Branch,
    Owner,
    Piece,
    PlacedSleep,
    Planted,
    Point,
    Reached,
    SessionRow,
    Snapshot,
    Source,
    Step,
)
from slowwave.memory.ledger import Entry
from slowwave.memory.names import TakenName

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

    # Reading.

    def names(self) -> list[str]:
        """The names of all sessions, in order."""
        with self.reading() as db:
            return rows.read_names(db)

    def has(self, name: str) -> bool:
        """Whether there is a session of this name."""
        with self.reading() as db:
            return rows.has_session(db, name)

    def find(self, name: str) -> SessionRow:
        """A session by its name; raises ValueError, which lists those there are."""
        with self.reading() as db:
            return rows.find_session(db, name)

    def snapshots(self, session: SessionRow) -> list[Snapshot]:
        """All snapshots of a session, oldest first."""
        with self.reading() as db:
            return rows.read_snapshots(db, session.id)

    def find_point(self, name: str, snapshot: str | None = None) -> Point:
        """The head or a snapshot of a session; raises ValueError, which lists those there are."""
        with self.reading() as db:
            session = rows.find_session(db, name)
            if snapshot is None:
                return session.head
            return rows.find_snapshot(db, session.id, snapshot).point

    def entries(self, point: Point, start: int = 0, stop: int | None = None) -> list[Entry]:
        """The ledger up to a point, or its places start..stop."""
        with self.reading() as db:
            return list(rows.read_entries(db, point, start=start, stop=stop).values())

    def keyed_entries(self, point: Point) -> dict[int, Entry]:
        """The ledger up to a point, by ids that are equal where ledgers share an entry."""
        with self.reading() as db:
            return rows.read_entries(db, point)

    def piece(self, point: Point, start: int, stop: int) -> Piece:
        """The places start..stop of the ledger up to a point, with what consolidated them."""
        with self.reading() as db:
            return rows.read_piece(db, point, start, stop)

    def fit(self, point: Point, start: int, stop: int, most_tokens: int) -> int:
        """The end of the places from `start` on that have so many tokens together, or `stop`."""
        with self.reading() as db:
            return rows.fit_entries(db, point, start, stop, most_tokens)

    def sources(self, point: Point) -> list[Source]:
        """What was read from where up to a point, in order of appearance."""
        with self.reading() as db:
            return rows.count_sources(db, point)

    def sleeps(self, point: Point, last: int | None = None) -> list[PlacedSleep]:
        """All sleeps up to a point, or the last so many."""
        with self.reading() as db:
            return rows.read_sleeps(db, point, last=last)

    def find_carriers(self, entries: Iterable[int]) -> list[tuple[str, str | None]]:
        """(session, None) for ledgers that have any of some entries, (session, snapshot) for
        snapshots; also for copies of these entries."""
        with self.reading() as db:
            return rows.read_carriers(db, entries)

    def files(self) -> dict[str, bool]:
        """Every state file that is named here, and whether it is that of a session's head."""
        with self.reading() as db:
            return rows.read_file_names(db)

    def ids(self) -> set[int]:
        """The ids of all sessions."""
        with self.reading() as db:
            return rows.read_ids(db)

    def count_wipes(self) -> tuple[int, int]:
        """How often something was deleted, and up to which time all traces of it are gone."""
        with self.reading() as db:
            return deletion.count_wipes(db)

    # Writing.

    def create(self, name: str, owner: Owner, origin: Point | None = None) -> SessionRow:
        """A new session, empty or at a point of another; raises ValueError if the name is taken."""
        with self.writing() as db:
            if rows.has_session(db, name):
                raise TakenName(f"session {name!r} is there already; choose another name")
            head = origin or rows.insert_point(db, None, 0, Reached(None, 0, 0, 0))
            now = time.time()
            db.execute(
                "INSERT INTO sessions (name, created, changed, model, tokenizer, sleep, gate, head)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (name, now, now, *owner, head.id),
            )
            return rows.find_session(db, name)

    def fork(self, source: str, snapshot: str | None, name: str) -> SessionRow:
        """A new session at the head, or at a snapshot, of another."""
        with self.writing():
            return self.create(name, self.find(source).owner, self.find_point(source, snapshot))

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
            head = rows.append(db, start.entry, start.num_entries, steps, reached)
            # A sleep between turns is none that could be taken anew.
            is_turn = any(step.entry.kind != "sleep" for step in steps)
            moved = rows.move(db, session, head, start if is_turn else session.before)
            old = [point.id for point in (session.head, session.before) if point is not None]
            removed = [file for point in old for file in deletion.drop_point(db, point)]
            if instead:
                deletion.ask_to_wipe(db)
                deletion.drop_entries(db, -1)
            return moved, removed

    def snapshot(self, session: SessionRow, name: str) -> Snapshot:
        """Names the head of a session; raises ValueError if the name is taken."""
        with self.writing() as db:
            if any(name == taken.name for taken in rows.read_snapshots(db, session.id)):
                raise TakenName(f"snapshot {name!r} is there already; choose another name")
            rows.insert_snapshot(db, session.id, name, time.time(), session.head)
            return rows.find_snapshot(db, session.id, name)

    def roll_back(self, session: SessionRow, snapshot: str) -> tuple[SessionRow, list[str]]:
        """Makes a snapshot the head. Returns as `advance`; entries are left to `collect`."""
        with self.writing() as db:
            point = rows.find_snapshot(db, session.id, snapshot).point
            return rows.move(db, session, point), self._drop_points(db)

    def rewrite(
        self,
        session: SessionRow,
        kept: int,
        steps: Iterable[Step],
        reached: Reached,
        snapshots: Iterable[str],
    ) -> tuple[SessionRow, list[str]]:
        """Replaces all but the first `kept` entries, and drops snapshots; as `roll_back`."""
        with self.writing() as db:
            ids = list(rows.read_entries(db, session.head))[:kept]
            head = rows.append(db, ids[-1] if ids else None, kept, steps, reached)
            moved = rows.move(db, session, head)
            for name in snapshots:
                rows.drop_snapshot(db, session.id, name)
            return moved, self._drop_points(db)

    def drop_snapshot(self, session: SessionRow, name: str) -> list[str]:
        """Forgets a name; returns the state files that nothing names any more.

        On a full disk it takes the reserve. Entries are left to `collect`.
        """

        def drop() -> list[str]:
            with self.writing() as db:
                rows.find_snapshot(db, session.id, name)
                rows.drop_snapshot(db, session.id, name)
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
                ids.append(rows.insert_step(db, above, places[-1], step))

            def insert(planted: Planted) -> Point:
                last, reached = planted
                if last is None:
                    return rows.insert_point(db, None, 0, reached)
                return rows.insert_point(db, ids[last], places[last] + 1, reached)

            for name, named, planted in snapshots:
                rows.insert_snapshot(db, session.id, name, named, insert(planted))
            moved = rows.move(db, session, insert(head))
            deletion.drop_point(db, session.head.id)
            return moved

    # Removing what was deleted.

    def collect(self) -> None:
        """Deletes the entries that no point leads to: on a full disk a few at a time."""
        try:
            with self.writing() as db:
                deletion.drop_entries(db, -1)
        except OSError as error:
            if not is_full(error):
                raise
            while self.insist(self._collect_few):
                self.empty_log()

    def wipe(self) -> bool:
        """Overwrites what was deleted, in the file and its log; returns whether that is done.

        It is not while another process reads what was there. Raises OSError where there is no room
        for as much as the file takes.
        """
        asked, _ = self.count_wipes()
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
                deletion.end_wipe(db, asked)

        self.insist(end)
        self.reserve.make()

    def _collect_few(self) -> int:
        with self.writing() as db:
            return deletion.drop_entries(db, FEW)

    def _drop_points(self, db: sqlite3.Connection) -> list[str]:
        deletion.ask_to_wipe(db)
        return deletion.drop_points(db)
