"""The catalogue's tables, and the way from every older version of them to this one."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from slowwave.memory.catalogue_trust import add_functions, require_own_schema, run_script

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
            return  # and nobody who writes need be waited for
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
