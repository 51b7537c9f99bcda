"""What a store says of its sessions, of two points of them, and of the disk."""

from __future__ import annotations

import dataclasses

from slowwave.memory.catalogue_rows import Snapshot
from slowwave.memory.ledger import Entry
from slowwave.sleep.config import SleepConfig


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """A session as it was after its last acknowledged turn."""

    name: str
    created: float
    """Seconds since 1970, as `changed`."""
    changed: float
    num_entries: int
    tokens_seen: int
    num_sleeps: int
    window_fill: int
    nbytes: int
    """Size of its state file."""
    snapshots: tuple[Snapshot, ...]
    model: str
    """Fingerprints of model and tokenizer."""
    tokenizer: str
    sleep: SleepConfig


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What tells two points of sessions apart."""

    changes: tuple[float, ...]
    """For every recurrent layer |S_second - S_first| / |S_first|, in Frobenius norms."""
    only_first: list[Entry]
    only_second: list[Entry]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DiskUse:
    """Bytes on disk by kind."""

    catalogue: int
    """Ledgers, sleeps and names, with the log that SQLite keeps beside them."""
    heads: int
    """State files that sessions go on from; forks may share one."""
    snapshots: int
    """State files that only snapshots need."""
    leftovers: int
    """What kills left, until the store is opened again, and what is being written now."""
    reserve: int
    """Room that is kept so that a session can be deleted when the disk is full."""
