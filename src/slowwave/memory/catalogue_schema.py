"""The tables of the catalogue, their older versions, and what a catalogue is trusted with.

A memory directory may come from elsewhere, and SQLite does what its files say: the file may lead to
no other file, and have no tables but those that this package makes.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from slowwave.memory.ledger import recall_speaker
from slowwave.memory.names import Damaged
from slowwave.storage.files import open_plain, require_plain

# Ends a rollback journal that names a super-journal, a file which SQLite removes after it.
_NAMES_ANOTHER = bytes.fromhex("d9d505f920a163d7")


def require_own_files(path: Path) -> None:
    """Raises Damaged if the catalogue, or what SQLite keeps beside it, leads to another file."""
    journal = path.with_name(f"{path.name}-journal")
    try:
        for suffix in ("", "-wal", "-shm", "-journal"):
            require_plain(path.with_name(path.name + suffix))
        with contextlib.suppress(FileNotFoundError), open_plain(journal, follow=False) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - len(_NAMES_ANOTHER)))
            if file.read() == _NAMES_ANOTHER:
                raise ValueError(f"{journal}: leads to another file; restore all from a copy")
    except ValueError as error:
        raise Damaged(str(error)) from None


def distrust(db: sqlite3.Connection) -> None:
    """Lets nothing in the file call functions, and looks at every cell of it."""
    db.execute("PRAGMA trusted_schema = OFF")
    db.execute("PRAGMA cell_size_check = ON")


def require_own_schema(db: sqlite3.Connection, path: Path, scripts: Sequence[str]) -> None:
    """Raises Damaged if there is another table, index, view or trigger than scripts make."""
    if _read_schema(db) != _make_schema(tuple(scripts)):
        raise Damaged(
            f"{path}: its tables are not those of format {len(scripts)}; restore it from a copy"
        )


def add_functions(db: sqlite3.Connection) -> None:
    """What the scripts call."""
    db.create_function("recall_role", 3, lambda *entry: recall_speaker(*entry)[0])
    db.create_function("recall_words", 3, lambda *entry: recall_speaker(*entry)[1])


def run_script(db: sqlite3.Connection, script: str) -> None:
    """Runs statements within a transaction, which executescript would commit."""
    for statement in script.split(";"):
        db.execute(statement)


@functools.cache
def _make_schema(scripts: tuple[str, ...]) -> list[tuple[str, ...]]:
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        add_functions(db)
        for script in scripts:
            run_script(db, script)
        return _read_schema(db)


def _read_schema(db: sqlite3.Connection) -> list[tuple[str, ...]]:
    """Type, name, table and words of all that is not SQLite's own bookkeeping."""
    found = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")
    rows = [[str(part) for part in row] for row in found]
    return sorted(
        (kind, name, table, re.sub(r"\s+", " ", words.replace('"', "")))
        for kind, name, table, words in rows
        if kind not in ("table", "index") or not name.startswith("sqlite_")
    )


APPLICATION_ID = 0x736C7731
"""Tells our SQLite files from those of others."""

# The script at index v leads from version v to v + 1; once released, a script never changes.
MIGRATIONS = (
    """
    CREATE TABLE entries (
        id INTEGER PRIMARY KEY,
        parent INTEGER REFERENCES entries DEFERRABLE INITIALLY DEFERRED,
        place INTEGER NOT NULL,
        kind TEXT NOT NULL,
        time REAL NOT NULL,
        source TEXT NOT NULL,
        text TEXT NOT NULL,
        tokens BLOB NOT NULL,
        passes INTEGER
    );
    CREATE TABLE sleeps (
        entry INTEGER NOT NULL REFERENCES entries ON DELETE CASCADE,
        number INTEGER NOT NULL,
        start INTEGER NOT NULL,
        stop INTEGER NOT NULL,
        report TEXT NOT NULL,
        PRIMARY KEY (entry, number)
    ) WITHOUT ROWID;
    CREATE TABLE points (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        entry INTEGER REFERENCES entries,
        file TEXT,
        num_entries INTEGER NOT NULL,
        tokens_seen INTEGER NOT NULL,
        num_sleeps INTEGER NOT NULL,
        window_fill INTEGER NOT NULL
    );
    CREATE TABLE sessions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        created REAL NOT NULL,
        changed REAL NOT NULL,
        model TEXT NOT NULL,
        tokenizer TEXT NOT NULL,
        sleep TEXT NOT NULL,
        head INTEGER NOT NULL REFERENCES points
    );
    CREATE TABLE snapshots (
        session INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,
        name TEXT NOT NULL,
        time REAL NOT NULL,
        point INTEGER NOT NULL REFERENCES points,
        PRIMARY KEY (session, name)
    ) WITHOUT ROWID;
    CREATE INDEX entries_parent ON entries (parent);
    CREATE INDEX points_entry ON points (entry);
    CREATE INDEX sessions_head ON sessions (head);
    CREATE INDEX snapshots_point ON snapshots (point);
    """,
    "ALTER TABLE sessions ADD COLUMN gate TEXT",
    """
    ALTER TABLE entries ADD COLUMN role TEXT;
    ALTER TABLE entries ADD COLUMN said TEXT NOT NULL DEFAULT '';
    ALTER TABLE entries ADD COLUMN finish TEXT;
    ALTER TABLE entries ADD COLUMN request TEXT NOT NULL DEFAULT '';
    UPDATE entries SET
        role = recall_role(kind, source, text),
        said = recall_words(kind, source, text),
        finish = CASE kind WHEN 'reply' THEN 'stop' END;
    ALTER TABLE sessions ADD COLUMN before INTEGER REFERENCES points;
    CREATE INDEX sessions_before ON sessions (before)
    """,
    """
    CREATE TABLE wipes (asked INTEGER NOT NULL, done INTEGER NOT NULL);
    INSERT INTO wipes SELECT count(*) > 0, 0 FROM sessions
    """,
    """
    CREATE TABLE notes (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        session INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,
        entry INTEGER NOT NULL REFERENCES entries ON DELETE CASCADE,
        time REAL NOT NULL,
        block TEXT,
        receipt TEXT NOT NULL
    );
    CREATE TABLE episodes (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        session INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,
        entry INTEGER NOT NULL REFERENCES entries ON DELETE CASCADE,
        start INTEGER NOT NULL,
        stop INTEGER NOT NULL,
        kind TEXT NOT NULL,
        confidence REAL NOT NULL,
        statement TEXT NOT NULL,
        written REAL NOT NULL
    );
    CREATE TABLE links (
        newer INTEGER NOT NULL REFERENCES episodes ON DELETE CASCADE,
        older INTEGER NOT NULL REFERENCES episodes ON DELETE CASCADE,
        kind TEXT NOT NULL,
        PRIMARY KEY (newer, older)
    ) WITHOUT ROWID;
    CREATE TABLE readings (
        id INTEGER PRIMARY KEY,
        session INTEGER NOT NULL REFERENCES sessions ON DELETE CASCADE,
        entry INTEGER NOT NULL REFERENCES entries ON DELETE CASCADE,
        receipt TEXT NOT NULL,
        UNIQUE (session, entry)
    );
    CREATE INDEX notes_session ON notes (session);
    CREATE INDEX notes_entry ON notes (entry);
    CREATE INDEX episodes_session ON episodes (session);
    CREATE INDEX episodes_entry ON episodes (entry);
    CREATE INDEX links_older ON links (older);
    CREATE INDEX readings_entry ON readings (entry)
    """,
)

WIPES_SINCE = 4
"""The version since which the catalogue counts what is to be wiped."""


def prepare(db: sqlite3.Connection, path: Path) -> None:
    """Makes the tables, or brings older ones up to date, in one transaction.

    Raises ValueError if the file is another program's, of a newer version, or has other tables.
    """
    add_functions(db)
    with _transaction(db, "BEGIN"):
        if _read_version(db, path) == len(MIGRATIONS):
            return  # without waiting for a process that writes
    with _transaction(db, "BEGIN IMMEDIATE"):
        version = _read_version(db, path)
        for script in MIGRATIONS[version:]:
            run_script(db, script)
        if 0 < version < WIPES_SINCE:  # it did not count: anything may be left
            db.execute("UPDATE wipes SET asked = max(asked, 1)")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        db.execute("COMMIT")


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection, begin: str) -> Iterator[None]:
    """Rolled back at its end, unless it was committed."""
    db.execute(begin)
    try:
        yield
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def _read_version(db: sqlite3.Connection, path: Path) -> int:
    application = db.execute("PRAGMA application_id").fetchone()[0]
    version = db.execute("PRAGMA user_version").fetchone()[0]
    tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables and application != APPLICATION_ID:
        raise ValueError(f"{path}: not the catalogue of a memory store; name another directory")
    if not 0 <= version <= len(MIGRATIONS):
        raise ValueError(
            f"{path}: format {version}, but this slowwave reads up to {len(MIGRATIONS)}; use "
            "the slowwave that wrote it"
        )
    require_own_schema(db, path, MIGRATIONS[:version])
    return version
