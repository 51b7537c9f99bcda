"""The catalogue of a memory store: sessions, ledgers, sleeps and snapshots, in one SQLite file.

Ledgers form a tree. An entry never changes and names the one before it, so a ledger is the way from
its last entry back to the root, and forks and snapshots share what they have in common.
"""

from __future__ import annotations

import contextlib
import errno
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from slowwave.memory import catalogue_rows as rows
from slowwave.memory.catalogue_schema import prepare
from slowwave.memory.catalogue_trust import distrust, require_own_files
from slowwave.memory.catalogue_types import (
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
from slowwave.memory.refusals import Damaged, TakenName
from slowwave.memory.row_checks import BadRow

BUSY_SECONDS = 30


class Catalogue:
    """Every method is one transaction, or a part of the one it is called in (`writing`).

    Threads and processes wait for each other. Who may change a session is decided elsewhere
    (`memory/session_lock.py`). Raises OSError if the disk is full or fails, ValueError if the file
    is damaged or another program's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mutex = threading.RLock()
        require_own_files(path)
        with self._explained():
            self._db = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._db.row_factory = sqlite3.Row
            try:
                distrust(self._db)
                prepare(self._db, path)
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                self._db.execute("PRAGMA foreign_keys = ON")
                # What is forgotten is overwritten, not only unlinked.
                self._db.execute("PRAGMA secure_delete = ON")
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Closes the file; nothing works after it."""
        self._db.close()

    # Reading.

    def sessions(self) -> list[SessionRow]:
        """All sessions, by name."""
        with self.reading() as db:
            return rows.read_sessions(db)

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

    def find_carriers(self, entry: int) -> list[tuple[str, str | None]]:
        """(session, None) for ledgers that have an entry, (session, snapshot) for snapshots."""
        with self.reading() as db:
            return rows.read_carriers(db, entry)

    def files(self) -> dict[str, bool]:
        """Every state file that is named here, and whether it is that of a session's head."""
        with self.reading() as db:
            return rows.read_file_names(db)

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
            if instead:
                return moved, rows.collect(db)
            return moved, rows.drop_points(db, [session.head, session.before])

    def snapshot(self, session: SessionRow, name: str) -> Snapshot:
        """Names the head of a session; raises ValueError if the name is taken."""
        with self.writing() as db:
            if any(name == taken.name for taken in rows.read_snapshots(db, session.id)):
                raise TakenName(f"snapshot {name!r} is there already; choose another name")
            rows.insert_snapshot(db, session.id, name, time.time(), session.head)
            return rows.find_snapshot(db, session.id, name)

    def roll_back(self, session: SessionRow, snapshot: str) -> tuple[SessionRow, list[str]]:
        """Makes a snapshot the head; returns as `advance`."""
        with self.writing() as db:
            point = rows.find_snapshot(db, session.id, snapshot).point
            return rows.move(db, session, point), rows.collect(db)

    def rewrite(
        self,
        session: SessionRow,
        kept: int,
        steps: Iterable[Step],
        reached: Reached,
        snapshots: Iterable[str],
    ) -> tuple[SessionRow, list[str]]:
        """Replaces all but the first `kept` entries, and drops snapshots; returns as `advance`."""
        with self.writing() as db:
            ids = list(rows.read_entries(db, session.head))[:kept]
            head = rows.append(db, ids[-1] if ids else None, kept, steps, reached)
            moved = rows.move(db, session, head)
            for name in snapshots:
                rows.drop_snapshot(db, session.id, name)
            return moved, rows.collect(db)

    def drop_snapshot(self, session: SessionRow, name: str) -> list[str]:
        """Forgets a name; returns the state files that nothing names any more."""
        with self.writing() as db:
            rows.find_snapshot(db, session.id, name)
            rows.drop_snapshot(db, session.id, name)
            return rows.collect(db)

    def delete(self, session: SessionRow) -> list[str]:
        """Removes a session with its snapshots; returns as `drop_snapshot`."""
        with self.writing() as db:
            db.execute("DELETE FROM sessions WHERE id = ?", (session.id,))
            return rows.collect(db)

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
            rows.collect(db)
            return moved

    def wipe(self) -> None:
        """Writes the log into the file and empties it, so that what was deleted is in neither.

        While another process reads, that is left to a later call.
        """
        with self._mutex, self._explained():
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # Transactions.

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """What is read within belongs together."""
        with self._transaction("BEGIN") as db:
            yield db

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """All that is written within is written, or nothing of it."""
        with self._transaction("BEGIN IMMEDIATE") as db:
            yield db

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._mutex, self._explained():
            if self._db.in_transaction:
                yield self._db
                return
            self._db.execute(begin)
            try:
                yield self._db
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError:
            raise
        except (sqlite3.Error, BadRow) as error:
            raise _explain(self.path, error) from None


def _explain(path: Path, error: Exception) -> Exception:
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return OSError(errno.ENOSPC, "the disk is full; make room and try again", str(path))
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL:
            return OSError(errno.EBUSY, "another process keeps writing; try again", str(path))
        case sqlite3.SQLITE_NOMEM:
            return OSError(errno.ENOMEM, "there is too little memory", str(path))
        case (
            sqlite3.SQLITE_IOERR
            | sqlite3.SQLITE_CANTOPEN
            | sqlite3.SQLITE_READONLY
            | sqlite3.SQLITE_PERM
            | sqlite3.SQLITE_AUTH
        ):
            return OSError(errno.EIO, f"{error}; see to the disk and its rights", str(path))
        case _:  # what is in the file is not what we wrote, be it a page, a row or a table
            reason = "".join(sign if sign.isprintable() else "?" for sign in f"{error!s:.120}")
            return Damaged(
                f"{path}: damaged, or no catalogue ({reason}); restore it from a copy, or start "
                "anew in another directory and import exported sessions"
            )
