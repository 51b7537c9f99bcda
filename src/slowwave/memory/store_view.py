"""What a store says of its sessions, of two points of them, and of the disk."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from pathlib import Path

from torch import Tensor

from slowwave.memory.catalogue import Catalogue
from slowwave.memory.catalogue_reads import (
    count_sources,
    find_point,
    find_session,
    fit_entries,
    read_entries,
    read_file_names,
    read_keyed_entries,
    read_names,
    read_page,
    read_sleeps,
    read_snapshots,
    split_point,
)
from slowwave.memory.catalogue_rows import (
    LedgerPage,
    PlacedSleep,
    Point,
    SessionRow,
    Snapshot,
    Source,
)
from slowwave.memory.config import GateConfig
from slowwave.memory.ledger import Entry
from slowwave.memory.names import UnknownName
from slowwave.memory.private_store import CATALOGUE, FILES, RESERVE, STATES
from slowwave.memory.sleep_report import Provenance, Slept, locate, measure_change
from slowwave.memory.state_files import StateFiles, load_state, measure_file
from slowwave.runtime.model_folder import TalkingModel
from slowwave.sleep.config import SleepConfig
from slowwave.state import MemoryState


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


class StoreView:
    """What can be seen in the directory of a store, without its sessions being open.

    Points of sessions are named as "session", the head, or as "session@snapshot".
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files = StateFiles(directory / STATES)
        self._catalogue = Catalogue(directory / CATALOGUE)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {str(self.directory)!r}>"

    def names(self) -> list[str]:
        """The names of all sessions, in order."""
        with self._catalogue.reading() as db:
            return read_names(db)

    def sessions(self) -> list[SessionInfo]:
        """All sessions, by name; others get their turn between each two."""
        found = list[SessionInfo]()
        for name in self.names():
            with contextlib.suppress(UnknownName):  # it has gone meanwhile
                found.append(self.info(name))
            time.sleep(0)  # a thread that waits gets the lock only if its holder pauses
        return found

    def info(self, name: str) -> SessionInfo:
        """One session; raises ValueError, which lists those there are."""
        with self._catalogue.holding() as db:
            row = find_session(db, name)
            snapshots = read_snapshots(db, row.id)
            return SessionInfo(
                name=row.name,
                created=row.created,
                changed=row.changed,
                num_entries=row.head.num_entries,
                tokens_seen=row.head.tokens_seen,
                num_sleeps=row.head.num_sleeps,
                window_fill=row.head.window_fill,
                nbytes=self._files.measure(row.head.file),
                snapshots=tuple(snapshots),
                model=row.owner.model,
                tokenizer=row.owner.tokenizer,
                sleep=row.owner.parse_sleep(),
            )

    def entries(self, point: str, start: int = 0, stop: int | None = None) -> list[Entry]:
        """The ledger of a session or snapshot, or its places start..stop."""
        with self._catalogue.reading() as db:
            return read_entries(db, find_point(db, point), start, stop)

    def page(
        self, point: str, start: int, stop: int, *, most_tokens: int | None = None
    ) -> LedgerPage:
        """The places start..stop of the ledger of a session or snapshot, and their sleeps.

        most_tokens: ends it earlier, after one entry at least.
        """
        with self._catalogue.reading() as db:
            found = find_point(db, point)
            stop = min(stop, found.num_entries)
            start = min(start, stop)
            if most_tokens is not None:
                stop = fit_entries(db, found, start, stop, most_tokens)
            return read_page(db, found, start, stop)

    def last_page(self, point: str, count: int) -> LedgerPage:
        """As `page`, the last so many places."""
        with self._catalogue.reading() as db:
            found = find_point(db, point)
            return read_page(db, found, max(0, found.num_entries - count), found.num_entries)

    def sources(self, point: str) -> list[Source]:
        """What a session or snapshot was told from where, in order of appearance."""
        with self._catalogue.reading() as db:
            return count_sources(db, find_point(db, point))

    def sleeps(self, point: str, last: int | None = None) -> list[Slept]:
        """The sleeps of a session or snapshot, or the last so many, and what each consolidated."""
        return [placed.slept for placed in self.placed_sleeps(point, last)]

    def placed_sleeps(self, point: str, last: int | None = None) -> list[PlacedSleep]:
        """As `sleeps`, each with the entry that it happened in."""
        with self._catalogue.reading() as db:
            return read_sleeps(db, find_point(db, point), last=last)

    def provenance(self, point: str) -> Provenance:
        """Which parts of the ledger each sleep consolidated, and which are in the window."""
        with self._catalogue.reading():
            return locate(self.entries(point), self.sleeps(point))

    def gate(self, name: str) -> GateConfig | None:
        """What may reject the sleeps of a session; None if nothing does."""
        return self._find_session(name).owner.parse_gate()

    def state(self, point: str, talker: TalkingModel) -> MemoryState:
        """The memory of a session or snapshot, which may be open in another process.

        Raises ValueError if it is of another model, tokenizer or settings, or cannot be read.
        """
        with self._catalogue.holding():
            row = self._find_session(point)
            row.owner.require_talker(row.name, talker)
            return load_state(self._catalogue, self._files, self._find(point), talker)

    def diff(self, first: str, second: str) -> Difference:
        """What tells two points apart, of one session or of two with models of the same sizes."""
        with self._catalogue.holding():
            weights = [self._read_fast_weights(self._find(point)) for point in (first, second)]
            ledgers = [self._read_ledger(point) for point in (first, second)]
        old, new = weights
        if [tensor.shape for tensor in old] != [tensor.shape for tensor in new]:
            raise ValueError(f"{first} and {second} are of models that differ; name two of one")
        return Difference(
            changes=tuple(measure_change(a, b) for a, b in zip(old, new, strict=True)),
            only_first=[entry for id_, entry in ledgers[0].items() if id_ not in ledgers[1]],
            only_second=[entry for id_, entry in ledgers[1].items() if id_ not in ledgers[0]],
        )

    def measure(self) -> DiskUse:
        """What the store takes on disk."""
        with self._catalogue.reading() as db:
            is_head = read_file_names(db)
        sizes = {"heads": 0, "snapshots": 0, "leftovers": 0}
        for path in self._files.folder.iterdir():
            kind = {True: "heads", False: "snapshots", None: "leftovers"}[is_head.get(path.name)]
            sizes[kind] += measure_file(path)
        parts = {name: measure_file(self.directory / name) for name in FILES}
        reserve = parts.pop(RESERVE)
        return DiskUse(catalogue=sum(parts.values()), reserve=reserve, **sizes)

    def _find(self, point: str) -> Point:
        with self._catalogue.reading() as db:
            return find_point(db, point)

    def _find_session(self, point: str) -> SessionRow:
        """The session of a point."""
        with self._catalogue.reading() as db:
            return find_session(db, split_point(point)[0])

    def _read_ledger(self, point: str) -> dict[int, Entry]:
        """The ledger up to a point, by ids that are equal where ledgers share an entry."""
        with self._catalogue.reading() as db:
            return read_keyed_entries(db, find_point(db, point))

    def _read_fast_weights(self, point: Point) -> list[Tensor]:
        if point.file is None:
            raise ValueError("a session that has read nothing has no fast weights; let it read")
        return self._files.read_fast_weights(point.file)
