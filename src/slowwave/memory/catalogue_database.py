"""Transactions of a catalogue, and what is done to its file as a whole."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from slowwave.memory.catalogue_file import (
    BUSY_SECONDS,
    REFUSALS,
    Reserve,
    explain,
    is_full,
    open_file,
)
from slowwave.memory.row_checks import BadRow

Result = TypeVar("Result")


class Database:
    """One connection, for all threads of a process in turn.

    Where the file cannot be written, it can be read as it was when it was opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mutex = threading.RLock()
        self.reserve = Reserve(path)
        self._db, self._obstacle = open_file(path, self.reserve)
        if self._obstacle is None:
            self.reserve.make()

    def close(self) -> None:
        """Closes the file; nothing works after it."""
        self._db.close()
        if self._obstacle is None:
            self.reserve.make()  # now that the room which SQLite took is free

    def require_writable(self) -> None:
        """Raises OSError, which says why, if nothing can be changed."""
        if self._obstacle is not None:
            raise self._obstacle

    # Transactions.

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """What is read within belongs together."""
        with self._transaction("BEGIN") as db:
            yield db

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """All that is written within is written, or nothing of it."""
        self.require_writable()
        with self._transaction("BEGIN IMMEDIATE") as db:
            yield db

    @contextlib.contextmanager
    def holding(self) -> Iterator[sqlite3.Connection]:
        """Nobody else writes within, so that no file goes that is looked at."""
        with self._transaction("BEGIN" if self._obstacle else "BEGIN IMMEDIATE") as db:
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
    def waiting(self, seconds: float) -> Iterator[None]:
        """Within, others who write or read are waited for so long instead of BUSY_SECONDS."""
        with self._mutex:
            self._db.execute(f"PRAGMA busy_timeout = {round(1000 * seconds)}")
            try:
                yield
            finally:
                self._db.execute(f"PRAGMA busy_timeout = {1000 * BUSY_SECONDS}")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError:
            raise
        except (*REFUSALS, BadRow) as error:
            raise explain(self.path, error) from None

    def empty_log(self) -> bool:
        """Writes the log into the file and empties it; false where somebody reads or writes."""
        with self._mutex, self._explained():
            busy, *_ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not busy

    def rewrite_file(self) -> None:
        """Leaves nothing in the file but what is in its tables.

        SQLite overwrites a row that is deleted, but not what is left of it where it was before its
        page was split or merged.
        """
        with self._mutex, self._explained():
            self._db.execute("VACUUM")

    def insist(self, change: Callable[[], Result]) -> Result:
        """A change that makes room: where there is none for it, it takes the reserve."""
        try:
            return change()
        except OSError as error:
            if not is_full(error) or not self.reserve.release():
                raise
        try:
            return change()
        finally:
            self.reserve.make()
