"""The SQL of notes and episodes, within a transaction.

Each row names its session and an entry of the ledger: notes the last one that they have seen, an
episode the one that it is from. A row is seen where its entry is on the way to the session's head,
and goes with its entry; so nothing outlives what it was made of.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from slowwave.memory.catalogue_reads import WAY
from slowwave.memory.catalogue_rows import (
    BadRow,
    Point,
    read_choice,
    read_count,
    read_text,
    read_time,
)
from slowwave.memory.episodes import (
    EPISODE_KINDS,
    LINK_KINDS,
    Episode,
    Found,
    LinkKind,
    ReadingReceipt,
)
from slowwave.memory.notes import Receipt
from slowwave.storage.json_files import parse_json

INSERT_VERSION = "INSERT INTO notes (session, entry, time, block, receipt) VALUES (?, ?, ?, ?, ?)"
INSERT_READING = "INSERT OR REPLACE INTO readings (session, entry, receipt) VALUES (?, ?, ?)"
TABLES = ("notes", "episodes", "readings")
_RECEIPT = TypeAdapter(Receipt)
_READING = TypeAdapter(ReadingReceipt)


class Version(NamedTuple):
    """A sleep in words."""

    id: int
    place: int
    """Of the last entry of the ledger that it was about."""
    time: float
    """When it was, in seconds since 1970."""
    block: str | None
    """The notes that it wrote; None if nothing changed."""
    receipt: Receipt


def read_versions(db: sqlite3.Connection, session: int, point: Point) -> list[Version]:
    """The sleeps in words of the session with an id, up to a point, oldest first."""
    return [
        Version(
            id=read_count(row, "id"),
            place=read_count(row, "place"),
            time=read_time(row, "time"),
            block=None if row["block"] is None else read_text(row, "block"),
            receipt=_parse(_RECEIPT, row),
        )
        for row in _select(db, "notes", session, point)
    ]


def insert_version(
    db: sqlite3.Connection,
    session: int,
    entry: int,
    time: float,
    block: str | None,
    receipt: Receipt,
) -> None:
    """Keeps a sleep in words."""
    db.execute(INSERT_VERSION, (session, entry, time, block, _dump(receipt)))


def drop_versions(db: sqlite3.Connection, session: int, entry: int) -> None:
    """Deletes the sleeps in words that have seen an entry of the ledger, on all its branches."""
    sql = """
        WITH RECURSIVE below(id) AS (
            VALUES (?) UNION SELECT entries.id FROM entries JOIN below ON parent = below.id
        )
        DELETE FROM notes WHERE session = ? AND entry IN below
    """
    db.execute(sql, (entry, session))


def read_readings(db: sqlite3.Connection, session: int, point: Point) -> dict[int, ReadingReceipt]:
    """The receipts of the entries that were read for episodes, by places."""
    rows = _select(db, "readings", session, point)
    return {read_count(row, "place"): _parse(_READING, row) for row in rows}


def insert_reading(
    db: sqlite3.Connection, session: int, entry: int, receipt: ReadingReceipt
) -> None:
    """Notes that an entry was read, or tried to."""
    db.execute(INSERT_READING, (session, entry, _dump(receipt)))


def read_episodes(db: sqlite3.Connection, session: int, point: Point) -> list[Episode]:
    """The episodes of the session with an id, up to a point, as they were found."""
    rows = {read_count(row, "id"): row for row in _select(db, "episodes", session, point)}
    links: dict[LinkKind, dict[int, list[int]]] = {kind: {} for kind in LINK_KINDS}
    overruled = set[int]()
    sql = "SELECT links.* FROM links JOIN episodes ON newer = id WHERE session = ?"
    for row in db.execute(sql, (session,)).fetchall():
        newer, older = read_count(row, "newer"), read_count(row, "older")
        if newer in rows and older in rows:
            links[read_choice(LINK_KINDS, row, "kind")].setdefault(newer, []).append(older)
            overruled.add(older)
    return [
        _parse_episode(
            row,
            contradicts=tuple(sorted(links["contradicts"].get(id_, ()))),
            corrects=tuple(sorted(links["corrects"].get(id_, ()))),
            in_force=id_ not in overruled and row["statement"] != "",
        )
        for id_, row in rows.items()
    ]


def insert_episodes(
    db: sqlite3.Connection, session: int, entry: int, written: float, found: Iterable[Found]
) -> list[int]:
    """Keeps what an entry tells; returns the ids."""
    ids = list[int]()
    for each in found:
        cursor = db.execute(
            "INSERT INTO episodes "
            "(session, entry, written, start, stop, kind, confidence, statement) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (session, entry, written, *each),
        )
        assert cursor.lastrowid is not None
        ids.append(cursor.lastrowid)
    return ids


def insert_link(db: sqlite3.Connection, newer: int, older: int, kind: LinkKind) -> None:
    """Notes that an episode stands against an older one."""
    db.execute("INSERT OR IGNORE INTO links VALUES (?, ?, ?)", (newer, older, kind))


def blank_episode(db: sqlite3.Connection, id_: int) -> None:
    """Leaves of an episode the place of its words alone."""
    db.execute("UPDATE episodes SET statement = '', confidence = 0.0 WHERE id = ?", (id_,))


def copy_notes(db: sqlite3.Connection, session: int, point: Point, to: int) -> None:
    """Gives a session that was forked at a point what another has up to there."""
    for row in _select(db, "notes", session, point):
        values = (to, *(row[name] for name in ("entry", "time", "block", "receipt")))
        db.execute(INSERT_VERSION, values)
    for row in _select(db, "readings", session, point):
        db.execute(INSERT_READING, (to, row["entry"], row["receipt"]))
    new = dict[int, int]()
    for row in _select(db, "episodes", session, point):
        values = (row[name] for name in Found._fields)
        ids = insert_episodes(db, to, row["entry"], row["written"], [Found(*values)])
        (new[row["id"]],) = ids
    for row in db.execute("SELECT * FROM links").fetchall():
        if row["newer"] in new and row["older"] in new:
            insert_link(db, new[row["newer"]], new[row["older"]], row["kind"])


def follow_rewrite(
    db: sqlite3.Connection, session: int, old: Sequence[int], new: Mapping[int, int]
) -> None:
    """After a ledger was rewritten: what is of one entry goes where that went; the rest goes.

    old: ids of the entries from the first that is gone on. new: those that came back, by old ids.
    """
    for table in ("episodes", "readings"):
        db.executemany(
            f"UPDATE {table} SET entry = ? WHERE session = ? AND entry = ?",
            [(after, session, before) for before, after in new.items()],
        )
    for table in TABLES:
        db.executemany(
            f"DELETE FROM {table} WHERE session = ? AND entry = ?", [(session, id_) for id_ in old]
        )


def _select(db: sqlite3.Connection, table: str, session: int, point: Point) -> list[sqlite3.Row]:
    """Rows of a table whose entries lead to a point, with place, time and source of these."""
    sql = (
        f"{WAY} SELECT {table}.*, place, entries.time AS told, source "
        f"FROM way JOIN entries USING (id) JOIN {table} ON {table}.entry = entries.id "
        f"WHERE session = ? ORDER BY {table}.id"
    )
    return db.execute(sql, (point.entry, 0, session)).fetchall()


def _parse_episode(row: sqlite3.Row, **links: Any) -> Episode:
    start, stop, confidence = read_count(row, "start"), read_count(row, "stop"), row["confidence"]
    if start > stop or type(confidence) is not float or not 0 <= confidence <= 1:
        raise BadRow(f"episode {row['id']} has no span or no confidence")
    return Episode(
        id=read_count(row, "id"),
        place=read_count(row, "place"),
        time=read_time(row, "told"),
        source=read_text(row, "source"),
        start=start,
        stop=stop,
        kind=read_choice(EPISODE_KINDS, row, "kind"),
        confidence=confidence,
        statement=read_text(row, "statement"),
        written=read_time(row, "written"),
        **links,
    )


def _parse(adapter: TypeAdapter[Any], row: sqlite3.Row) -> Any:
    try:
        return adapter.validate_python(parse_json(read_text(row, "receipt")))
    except ValueError:
        raise BadRow("the receipt of a sleep in words is none") from None


def _dump(receipt: Receipt | ReadingReceipt) -> str:
    return json.dumps(dataclasses.asdict(receipt), separators=(",", ":"))
