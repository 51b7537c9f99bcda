"""What the catalogue keeps, as its rows are read and written."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

from slowwave.memory.config import GateConfig
from slowwave.memory.ledger import Entry
from slowwave.memory.provenance import Slept
from slowwave.sleep.config import SleepConfig
from slowwave.storage.json_files import parse_json


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Where a session stood after a turn: its ledger up to there, and its state."""

    id: int
    entry: int | None
    """The last entry; None if nothing was read yet."""
    file: str | None
    """The state file; None if nothing was read yet."""
    num_entries: int
    tokens_seen: int
    num_sleeps: int
    window_fill: int


class Owner(NamedTuple):
    """What a session was read with, and is read on with."""

    model: str
    """Fingerprints of model and tokenizer."""
    tokenizer: str
    sleep: str
    """The sleep settings as canonical JSON."""
    gate: str | None = None
    """The gate as canonical JSON; None if there is none."""

    def parse_sleep(self) -> SleepConfig:
        """The sleep settings; raises ValueError if the JSON holds none."""
        return _parse_sleep(self.sleep)

    def parse_gate(self) -> GateConfig | None:
        """The gate; raises ValueError if the JSON holds none."""
        return None if self.gate is None else _parse_gate(self.gate)


@functools.lru_cache
def _parse_sleep(text: str) -> SleepConfig:
    return SleepConfig.from_dict(parse_json(text))


@functools.lru_cache
def _parse_gate(text: str) -> GateConfig:
    return GateConfig.from_dict(parse_json(text))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """A session as the catalogue has it."""

    id: int
    name: str
    created: float
    """Seconds since 1970, as `changed`."""
    changed: float
    owner: Owner
    head: Point
    before: Point | None
    """Where it stood before its last turn, which can be taken anew from there; None if nowhere."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A point of a session that was given a name."""

    name: str
    time: float
    """When it was named, in seconds since 1970."""
    point: Point


class Step(NamedTuple):
    """An entry and the sleeps that happened in it."""

    entry: Entry
    sleeps: list[Slept]


class Reached(NamedTuple):
    """The state after some steps, and its file."""

    file: str | None
    tokens_seen: int
    num_sleeps: int
    window_fill: int


class PlacedSleep(NamedTuple):
    """A sleep, and the entry that it happened in: its id, its place in the ledger and its time."""

    entry: int
    place: int
    time: float
    slept: Slept


class Piece(NamedTuple):
    """Entries of a ledger, one after another."""

    place: int
    """Of the first of them in the ledger."""
    start: int
    """Tokens of the stream before it."""
    entries: list[Entry]
    sleeps: list[Slept]
    """Those that consolidated something of it, in order."""


class Source(NamedTuple):
    """What was read from a source, and when at first and at last, in seconds since 1970."""

    source: str
    num_entries: int
    num_tokens: int
    first: float
    last: float


Branch = tuple[int | None, Step]
"""The number of the step before it, if any, and a step."""
Planted = tuple[int | None, Reached]
"""The number of the last step, if any, and what it reached."""
