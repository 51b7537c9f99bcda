"""What a catalogue may be made of: files of its own, and the tables that this package makes.

A memory directory may come from elsewhere, and SQLite does what its files say.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from slowwave.memory.ledger import recall_speaker
from slowwave.memory.refusals import Damaged
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
