"""Seeded damage to files: bytes, rows of a catalogue, JSON; the same in every run."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

from tensor_files import read_metadata, write_metadata

HOSTILE: tuple[Any, ...] = (
    *(None, True, 0, 1, -1, 2**31, 2**53 + 1, 2**63 - 1, 10**30),
    *(0.5, -0.5, 1e300, -1e300, float("inf"), float("nan")),
    *("", "x", "nan", "a\0b", "a\nb", "\x1b[2J", "../../canary", "\u00fc" * 200, "[" * 999),
    *([], {}, [[]], {"a": 1}, [None], ["x", 1]),
)


def spoil_bytes(content: bytes, draw: random.Random) -> bytes:
    """A few bits, bytes or pieces are others, gone, or new."""
    spoiled = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        place = draw.randrange(max(1, len(spoiled)))
        length = draw.choice((1, 1, 2, 4, 16, 300))
        match draw.randrange(6):
            case 0:
                spoiled[place : place + 1] = bytes(
                    [(spoiled + b"\0")[place] ^ 1 << draw.randrange(8)]
                )
            case 1:
                spoiled[place : place + length] = draw.randbytes(length)
            case 2:
                spoiled[place : place + length] = draw.choice((b"\0", b"\xff")) * length
            case 3:
                del spoiled[place : place + length]
            case 4:
                spoiled[place:place] = draw.randbytes(length)
            case _:
                del spoiled[place:]
    return bytes(spoiled)


def spoil_json(value: Any, draw: random.Random) -> Any:
    """Somewhere within, a value is another, a key gone, or something new."""
    if not isinstance(value, dict | list) or not value or draw.random() < 0.15:
        return draw.choice(HOSTILE)
    if isinstance(value, list):
        place = draw.randrange(len(value))
        return [spoil_json(part, draw) if i == place else part for i, part in enumerate(value)]
    key = draw.choice(sorted(value))
    match draw.randrange(8):
        case 0:
            return {name: part for name, part in value.items() if name != key}
        case 1:
            return {**value, "more": draw.choice(HOSTILE)}
        case _:
            return {**value, key: spoil_json(value[key], draw)}


def spoil_text(text: str, draw: random.Random) -> str:
    """JSON of another value, or no JSON."""
    if draw.random() < 0.2:
        return spoil_bytes(text.encode(), draw).decode(errors="replace")
    return json.dumps(spoil_json(json.loads(text), draw), separators=(",", ":"))


def spoil_rows(path: Path, draw: random.Random) -> None:
    """In a catalogue a column of a row, or of all, holds something else, or rows are gone."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        names = db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        tables = [name for (name,) in names.fetchall() if name != "sqlite_sequence"]
        full = [name for name in tables if db.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchone()]
        table = draw.choice(full)
        columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
        column, key = draw.choice(columns), columns[0]
        keys = [row[0] for row in db.execute(f"SELECT {key} FROM {table}")]
        values = [row[0] for row in db.execute(f"SELECT {column} FROM {table}")]
        value = _draw_cell(values, draw)
        which = f"WHERE {key} = ?2" if keys and draw.random() < 0.8 else "WHERE ?2 = ?2"
        chosen = draw.choice(keys) if keys else 0
        with contextlib.suppress(sqlite3.IntegrityError, OverflowError):
            if draw.random() < 0.1:
                db.execute(f"DELETE FROM {table} WHERE ?1 = ?1 AND {key} = ?2", (0, chosen))
            else:
                db.execute(f"UPDATE {table} SET {column} = ?1 {which}", (value, chosen))


def _draw_cell(values: list[Any], draw: random.Random) -> Any:
    old = draw.choice(values) if values else None
    match draw.randrange(6):
        case 0 if isinstance(old, str) and old.startswith(("{", "[")):
            return spoil_text(old, draw)
        case 1 if isinstance(old, bytes | str):
            return spoil_bytes(old if isinstance(old, bytes) else old.encode(), draw)
        case 2 if isinstance(old, str):
            return spoil_bytes(old.encode(), draw).decode(errors="replace")
        case 3 if isinstance(old, int | float):
            return old + draw.choice((-1, 1, 0.5, 2**40))
        case 4:
            return old  # that of another row
        case _:
            cells = [cell for cell in HOSTILE if not isinstance(cell, list | dict)]
            return draw.choice([*cells, b"", b"\xff\xfe", b"\0" * 4000])


def spoil_archive(path: Path, draw: random.Random) -> None:
    """An export whose bytes, manifest, members or states are others."""
    if draw.random() < 0.4:
        path.write_bytes(spoil_bytes(path.read_bytes(), draw))
        return
    with zipfile.ZipFile(path) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    place = draw.randrange(len(members))
    name, content = members[place]
    match draw.randrange(7):
        case 0:
            del members[place]
        case 1:
            members[place] = (
                draw.choice(("../canary", "/canary", "states/9.safetensors", "x\n")),
                content,
            )
        case 2:
            members.insert(0, (f"{name}.more", content))
        case 3:
            members[place] = name, spoil_bytes(content, draw)
        case _:
            members[0] = members[0][0], spoil_text(members[0][1].decode(), draw).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content)


def spoil_memory(path: Path, draw: random.Random) -> None:
    """A memory file whose bytes are others, or whose header is, and its checksum right."""
    if draw.random() < 0.5:
        path.write_bytes(spoil_bytes(path.read_bytes(), draw))
    else:
        write_metadata(path, spoil_text(read_metadata(path), draw))
