"""Columns of the catalogue's rows, each read as what this package writes there.

SQLite lets any column hold anything, and a catalogue may come from elsewhere.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from typing import TypeVar

from slowwave.memory.entry_checks import is_moment
from slowwave.storage.memory_file import MOST_TOKENS

Value = TypeVar("Value")
_STATE_FILE = re.compile(r"[0-9]{1,19}-[0-9a-f]{32}\.safetensors", re.ASCII)


class BadRow(ValueError):
    """A row is not what this package writes; what and why, in half a sentence."""


def whole(row: sqlite3.Row, column: str) -> int:
    """An id or a count."""
    value = row[column]
    if type(value) is not int or not 0 <= value <= MOST_TOKENS:
        raise _unfit(column, value, "is no count")
    return value


def moment(row: sqlite3.Row, column: str) -> float:
    """A time that clocks and calendars can show."""
    value = row[column]
    if type(value) is not float or not is_moment(value):
        raise _unfit(column, value, "is no time")
    return value


def text(row: sqlite3.Row, column: str) -> str:
    value = row[column]
    if type(value) is not str:
        raise _unfit(column, value, "is no text")
    return value


def one_of(values: Sequence[Value], row: sqlite3.Row, column: str) -> Value:
    """One of a few texts, or None where that is among them."""
    if row[column] not in values:
        raise _unfit(column, row[column], "is not known")
    return row[column]


def name(row: sqlite3.Row, column: str) -> str:
    """A name that can be printed and told from a point."""
    value = text(row, column)
    if not value.isprintable() or not 0 < len(value) <= 128 or "@" in value:
        raise _unfit(column, value, "is no name")
    return value


def state_file(row: sqlite3.Row, column: str) -> str | None:
    """The name of a state file as the store makes them, or None."""
    value = row[column]
    if value is not None and not is_state_file(value):
        raise _unfit(column, value, "is no name of a state file")
    return value


def blob(row: sqlite3.Row, column: str) -> bytes:
    value = row[column]
    if type(value) is not bytes:
        raise _unfit(column, value, "is no bytes")
    return value


def optional(row: sqlite3.Row, column: str) -> int | None:
    """As `whole`, or None."""
    return None if row[column] is None else whole(row, column)


def is_state_file(file: object) -> bool:
    """Whether this is a name as the store makes them: no path leads out of its folder."""
    return type(file) is str and _STATE_FILE.fullmatch(file) is not None


def _unfit(column: str, value: object, why: str) -> BadRow:
    return BadRow(f"{column} {value!r:.80} {why}")
