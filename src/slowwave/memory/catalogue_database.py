"""The file of a catalogue: opening it, transactions, and what is wrong with it.

Where it cannot be written it is read into memory, and what is there can still be looked at. A
reserve of room lies beside it: on a full disk its room is what deleting needs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import TypeVar

from slowwave.memory.catalogue_rows import BadRow
from slowwave.memory.catalogue_schema import distrust, prepare, require_own_files
from slowwave.memory.names import Damaged
from slowwave.memory.private_store import RESERVE
from slowwave.storage.files import FILE, FULL

BUSY_SECONDS = 30
REFUSALS = (sqlite3.Error, UnicodeDecodeError)
"""What is raised for a file that is none of ours: SQLite's words about it may quote its bytes."""
PAGE_NBYTES = 1 << 12
RESERVE_NBYTES = 64 * PAGE_NBYTES
"""SQLite takes 32 KiB to open a catalogue, and a few pages of 4 KiB to delete a session."""


class Reserve:
    """Room on the disk that is given up where there is no other."""

    def __init__(self, catalogue: Path) -> None:
        self._path = catalogue.with_name(RESERVE)

    def make(self) -> None:
        """Takes the room, or as much of it as there is."""
        with contextlib.suppress(OSError):
            if os.path.lexists(self._path) and self._path.lstat().st_size == RESERVE_NBYTES:
                return
            self.release()  # whatever it is, nothing is written to what is there already
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
            with FileIO(os.open(self._path, flags, FILE), "w") as file:
                while file.tell() < RESERVE_NBYTES:
                    file.write(bytes(PAGE_NBYTES))

    def release(self) -> bool:
        """Gives the room up; returns whether there was any."""
        with contextlib.suppress(OSError):
            self._path.unlink()
            return True
        return False


def open_file(path: Path, reserve: Reserve) -> tuple[sqlite3.Connection, OSError | None]:
    """Opens a catalogue, which is made if it is missing, or reads it into memory.

    Returns the connection, and why nothing can be written with it; None if it can.

    Raises OSError if it is neither there nor can be made, ValueError if it is damaged, another
    program's or of a newer format.
    """
    require_own_files(path)
    is_there = path.exists()
    if is_there and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        obstacle = OSError(errno.EROFS, "read-only; nothing can be changed here", str(path))
        return _read_into_memory(path, obstacle), obstacle
    try:
        return _connect(path), None
    except OSError as error:
        if not is_there or error.errno == errno.EBUSY:
            raise
        obstacle = error
    if reserve.release():
        try:
            return _connect(path), None
        except OSError:
            pass  # the room was taken by another, or was not all that it wants
        finally:
            reserve.make()
    return _read_into_memory(path, obstacle), obstacle


def explain(path: Path, error: Exception) -> Exception:
    """What SQLite says, or that a row is none of ours, as one of our errors."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_IOERR_SHMSIZE:  # which is how a full disk looks to a reader
        code = sqlite3.SQLITE_FULL
    match code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return OSError(errno.ENOSPC, "the disk is full; make room and try again", str(path))
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL:
            return OSError(errno.EBUSY, "another process keeps writing; try again", str(path))
        case sqlite3.SQLITE_NOMEM:
            return OSError(errno.ENOMEM, "there is too little memory", str(path))
        case sqlite3.SQLITE_READONLY:
            return OSError(errno.EROFS, "read-only; nothing can be changed here", str(path))
        case (
            sqlite3.SQLITE_IOERR
            | sqlite3.SQLITE_CANTOPEN
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


def _connect(path: Path) -> sqlite3.Connection:
    # SQLite gives the files beside it the same rights. It is not opened here if it is there: that
    # would end the locks that this process has on it.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE))
    try:
        db = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            db.row_factory = sqlite3.Row
            distrust(db)
            db.execute("PRAGMA temp_store = MEMORY")  # or texts are sorted in files elsewhere
            prepare(db, path)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            # What is deleted is overwritten, not only unlinked.
            db.execute("PRAGMA secure_delete = ON")
            # Nothing is in the log before it is committed: what is rolled back would stay there.
            db.execute("PRAGMA cache_spill = OFF")
        except BaseException:
            db.close()
            raise
    except REFUSALS as error:
        raise explain(path, error) from None
    return db


def _read_into_memory(path: Path, obstacle: OSError) -> sqlite3.Connection:
    """A copy that is up to date, whatever the format on disk; raises `obstacle` if it cannot be."""
    ways = ["mode=ro"]
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        said = f"{obstacle.strerror}, and its last turns are still in the log beside it; copy both"
        obstacle = OSError(obstacle.errno, f"{said} to where there is room", str(path))
    else:
        ways.append("mode=ro&immutable=1")  # reads without a log, and makes none
    for way in ways:
        db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        try:
            with contextlib.closing(
                sqlite3.connect(f"{path.absolute().as_uri()}?{way}", uri=True)
            ) as file:
                file.backup(db)
            db.row_factory = sqlite3.Row
            distrust(db)
            prepare(db, path)
            db.execute("PRAGMA query_only = ON")
            return db
        except REFUSALS as error:
            db.close()
            found = explain(path, error)
            if not isinstance(found, OSError):
                raise found from None
        except BaseException:
            db.close()
            raise
    raise obstacle


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
        """No other process writes within, so that no file goes that is looked at."""
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
        """Writes the log into the file and empties it; false while another process uses it."""
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
            if error.errno not in FULL or not self.reserve.release():
                raise
        try:
            return change()
        finally:
            self.reserve.make()
