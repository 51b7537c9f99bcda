"""A memory store: one directory that keeps sessions for as long as they live.

catalogue.sqlite has what was read and said, states/ what became of it, locks/ who is at it.
docs/memory-store.md describes them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import Tensor

from slowwave.generation.config import Sampling
from slowwave.generation.model_folder import Talker
from slowwave.memory.catalogue import Catalogue
from slowwave.memory.catalogue_rows import (
    Piece,
    PlacedSleep,
    Point,
    SessionRow,
    Snapshot,
    Source,
    Step,
)
from slowwave.memory.config import GateConfig
from slowwave.memory.ledger import Entry
from slowwave.memory.names import check_name, is_fit, is_readable
from slowwave.memory.owner import make_owner, own, parse_gate, require_gate, require_talker
from slowwave.memory.provenance import Provenance, Slept, locate, place_sleeps
from slowwave.memory.refusals import Damaged
from slowwave.memory.replay import replay, resleep
from slowwave.memory.session_file import (
    gather_session,
    plant_session,
    read_session_file,
    write_session_file,
)
from slowwave.memory.session_lock import SessionLock
from slowwave.memory.sleep_report import SleepReport, measure_change
from slowwave.memory.state_files import StateFiles
from slowwave.memory.store_view import Difference, DiskUse, SessionInfo
from slowwave.memory.stored_session import StoredSession, reach, start_session
from slowwave.sleep.config import SleepConfig
from slowwave.state import MemoryState
from slowwave.storage.memory_file import read_fast_weights, read_header


class Store:
    """Opens the store in a directory, which is made if it is not there.

    Points of sessions are named as "session", the head, or as "session@snapshot". Any number of
    processes may use a store; one at a time has a session open. Raises ValueError if the catalogue
    is damaged, foreign or of a newer format, OSError if the disk fails or is full.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._files = StateFiles(self.directory / "states")
        self._catalogue = Catalogue(self.directory / "catalogue.sqlite")

    def close(self) -> None:
        """Closes the catalogue; sessions must be closed before."""
        self._catalogue.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def sessions(self) -> list[SessionInfo]:
        """All sessions, by name."""
        with self._catalogue.writing():  # so that no file goes while it is looked at
            return [self._describe(row) for row in self._catalogue.sessions()]

    def info(self, name: str) -> SessionInfo:
        """One session; raises ValueError, which lists those there are."""
        with self._catalogue.writing():
            return self._describe(self._catalogue.find(name))

    def entries(self, point: str, start: int = 0, stop: int | None = None) -> list[Entry]:
        """The ledger of a session or snapshot, or its places start..stop."""
        with self._catalogue.reading():
            return self._catalogue.entries(self._find(point), start, stop)

    def piece(self, point: str, start: int, stop: int) -> Piece:
        """The places start..stop of the ledger of a session or snapshot, and their sleeps."""
        with self._catalogue.reading():
            found = self._find(point)
            stop = min(stop, found.num_entries)
            return self._catalogue.piece(found, min(start, stop), stop)

    def last_piece(self, point: str, count: int) -> Piece:
        """As `piece`, the last so many places."""
        with self._catalogue.reading():
            found = self._find(point)
            stop = found.num_entries
            return self._catalogue.piece(found, max(0, stop - count), stop)

    def sources(self, point: str) -> list[Source]:
        """What a session or snapshot was told from where, in order of appearance."""
        with self._catalogue.reading():
            return self._catalogue.sources(self._find(point))

    def sleeps(self, point: str, last: int | None = None) -> list[Slept]:
        """The sleeps of a session or snapshot, or the last so many, and what each consolidated."""
        return [placed.slept for placed in self.placed_sleeps(point, last)]

    def placed_sleeps(self, point: str, last: int | None = None) -> list[PlacedSleep]:
        """As `sleeps`, each with the entry that it happened in."""
        with self._catalogue.reading():
            return self._catalogue.sleeps(self._find(point), last)

    def provenance(self, point: str) -> Provenance:
        """Which parts of the ledger each sleep consolidated, and which are in the window."""
        with self._catalogue.reading():
            return locate(self.entries(point), self.sleeps(point))

    def gate(self, name: str) -> GateConfig | None:
        """What may reject the sleeps of a session; None if nothing does."""
        return parse_gate(self._catalogue.find(name).owner)

    def state(self, point: str, talker: Talker) -> MemoryState:
        """The memory of a session or snapshot, whoever has it open.

        Raises ValueError if it is of another model, tokenizer or settings, or cannot be read.
        """
        with self._catalogue.writing():  # so that its file does not go
            require_talker(self._catalogue.find(_parse_point(point)[0]), talker)
            return self._files.load(self._find(point).file, talker)

    def diff(self, first: str, second: str) -> Difference:
        """What tells two points apart, of one session or of two with models of the same sizes."""
        with self._catalogue.writing():
            points = [self._find(first), self._find(second)]
            weights = [self._read_fast_weights(point) for point in points]
            ledgers = [self._catalogue.keyed_entries(point) for point in points]
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
        is_head = self._catalogue.files()
        sizes = {"heads": 0, "snapshots": 0, "leftovers": 0}
        for path in self._files.folder.iterdir():
            kind = {True: "heads", False: "snapshots", None: "leftovers"}[is_head.get(path.name)]
            sizes[kind] += _size(path)
        catalogue = sum(_size(path) for path in self.directory.glob("catalogue.sqlite*"))
        return DiskUse(catalogue=catalogue, **sizes)

    def open(
        self,
        name: str,
        talker: Talker,
        *,
        create: bool = False,
        sampling: Sampling | None = None,
        on_sleep: Callable[[SleepReport], object] | None = None,
        gate: GateConfig | None = None,
    ) -> StoredSession:
        """Opens a session, or with `create` a new one where there is none.

        gate: of a new session what may reject its sleeps, for good. Of one that is there it is
        known, and can be left out.

        Raises ValueError if it is not there, is open elsewhere (naming by whom), is of another
        model, tokenizer, settings or gate, or its state file is missing or damaged (see `rebuild`).
        """
        if create:
            with self._catalogue.writing():
                if not self._catalogue.has(name):
                    self._create(name, talker, gate)
        row, lock = self._lock(name)
        try:
            require_talker(row, talker)
            gate = require_gate(row, gate)
            self._files.sweep(row.id, self._catalogue.files())
            try:
                state = self._files.load(row.head.file, talker)
            except ValueError as error:
                raise Damaged(
                    f"session {name!r} lost its state, but not its ledger: rebuild it from that "
                    f"({error})"
                ) from None
            return StoredSession(
                talker,
                self._catalogue,
                self._files,
                row,
                state,
                lock,
                sampling=sampling,
                on_sleep=on_sleep,
                gate=gate,
            )
        except BaseException:
            lock.release()
            raise

    def fork(self, point: str, name: str) -> SessionInfo:
        """A new session with the past of a session or snapshot; nothing is copied."""
        source, snapshot = _parse_point(point)
        self._catalogue.fork(source, snapshot, check_name("session", name))
        return self.info(name)

    def delete(self, name: str) -> None:
        """Removes a session with its snapshots; forks keep what they share with it."""
        with self._holding(name) as row:
            removed = self._catalogue.delete(row)
            self._files.sweep(row.id, self._catalogue.files())
            self._clear(removed)

    def snapshot(self, name: str, snapshot: str) -> Snapshot:
        """As `StoredSession.snapshot`, of a session that is not open, without its model."""
        with self._holding(name) as row:
            return self._catalogue.snapshot(row, check_name("snapshot", snapshot))

    def rollback(self, name: str, snapshot: str) -> SessionInfo:
        """As `StoredSession.rollback`, of a session that is not open, without its model."""
        with self._holding(name) as row:
            point = self._catalogue.find_point(name, snapshot)
            if point.file is not None:
                read_header(self._files.path(point.file))
            self._clear(self._catalogue.roll_back(row, snapshot)[1])
            return self.info(name)

    def drop_snapshot(self, name: str, snapshot: str) -> None:
        """As `StoredSession.drop_snapshot`, of a session that is not open, without its model."""
        with self._holding(name) as row:
            self._clear(self._catalogue.drop_snapshot(row, snapshot))

    def rebuild(self, name: str, talker: Talker) -> list[str]:
        """Replays the ledger wherever the state of a session or of its snapshots cannot be read.

        Returns the points that were rebuilt. Raises ValueError if another model, tokenizer or
        setting read it: `resleep` moves it there.
        """
        with self._holding(name) as row:
            require_talker(row, talker)
            gate = parse_gate(row.owner)
            points = {name: row.head}
            for snapshot in self._catalogue.snapshots(row):
                points[f"{name}@{snapshot.name}"] = snapshot.point
            lost = {name: point for name, point in points.items() if self._is_lost(point, talker)}
            for point in lost.values():
                entries = self._catalogue.entries(point)
                rebuilt = replay(lambda: start_session(talker, gate), entries)
                self._catalogue.replace_file(point, self._files.save(rebuilt, row.id))
                self._files.remove([] if point.file is None else [point.file])
            return list(lost)

    def resleep(
        self, point: str, name: str, talker: Talker, *, gate: GateConfig | None = None
    ) -> SessionInfo:
        """A new session, of another model, that went through the ledger of a point.

        gate: that of the session, if none is given.
        """
        check_name("session", name)
        gate = gate or self.gate(_parse_point(point)[0])
        entries = self._catalogue.entries(self._find(point))
        if self._catalogue.has(name):  # or an hour's replay comes to nothing
            raise ValueError(f"session {name!r} is there already; choose another name")
        session = resleep(lambda: start_session(talker, gate), entries)
        sleeps = place_sleeps(session.entries, session.sleeps)
        with self._catalogue.writing():
            row = self._create(name, talker, gate)
            reached = reach(self._files.save(session, row.id), session.state)
            self._catalogue.advance(row, [*map(Step, session.entries, sleeps)], reached)
        return self.info(name)

    def export(self, name: str, path: str | Path) -> None:
        """Writes a session, with its snapshots, as one file that `import_session` reads."""
        with self._catalogue.writing():
            row = self._catalogue.find(name)
            write_session_file(Path(path), gather_session(row, self._catalogue, self._files))

    def import_session(self, path: str | Path, name: str | None = None) -> SessionInfo:
        """Takes in an exported session, under its own name if none is given.

        Raises ValueError, and leaves nothing, if the file is damaged or the name is taken.
        """
        file = read_session_file(Path(path))
        manifest = file.manifest
        if name is None and not is_fit(manifest.name):
            raise ValueError(
                f"{path}: its session is called {manifest.name!r}, which is unfit; name it anew"
            )
        for snapshot in manifest.snapshots:
            if not is_readable(snapshot.name):
                raise ValueError(f"{path}: snapshot name {snapshot.name!r} is unfit")
        name = manifest.name if name is None else check_name("session", name)
        with self._catalogue.writing():
            owner = make_owner(manifest.model, manifest.tokenizer, manifest.sleep, manifest.gate)
            row = self._catalogue.create(name, owner)
            try:
                plant_session(file, row, self._catalogue, self._files)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
        return self.info(name)

    def _create(self, name: str, talker: Talker, gate: GateConfig | None) -> SessionRow:
        return self._catalogue.create(check_name("session", name), own(talker, gate))

    def _lock(self, name: str) -> tuple[SessionRow, SessionLock]:
        """Takes a session's lock, and then looks where it stands."""
        row = self._catalogue.find(name)
        lock = SessionLock(self.directory / "locks" / f"{row.id}.lock", name)
        try:
            found = self._catalogue.find(name)
            if found.id != row.id:
                raise ValueError(f"session {name!r} was deleted and made anew; open it again")
            return found, lock
        except BaseException:
            lock.release()
            raise

    @contextlib.contextmanager
    def _holding(self, name: str) -> Iterator[SessionRow]:
        """Nobody else has the session within."""
        row, lock = self._lock(name)
        try:
            yield row
        finally:
            lock.release()

    def _clear(self, removed: list[str]) -> None:
        self._files.remove(removed)
        self._catalogue.wipe()

    def _find(self, point: str) -> Point:
        return self._catalogue.find_point(*_parse_point(point))

    def _describe(self, row: SessionRow) -> SessionInfo:
        head = row.head
        return SessionInfo(
            name=row.name,
            created=row.created,
            changed=row.changed,
            num_entries=head.num_entries,
            tokens_seen=head.tokens_seen,
            num_sleeps=head.num_sleeps,
            window_fill=head.window_fill,
            nbytes=0 if head.file is None else _size(self._files.path(head.file)),
            snapshots=tuple(self._catalogue.snapshots(row)),
            model=row.owner.model,
            tokenizer=row.owner.tokenizer,
            sleep=SleepConfig.from_dict(json.loads(row.owner.sleep)),
        )

    def _read_fast_weights(self, point: Point) -> list[Tensor]:
        if point.file is None:
            raise ValueError("a session that has read nothing has no fast weights; let it read")
        return read_fast_weights(self._files.path(point.file))

    def _is_lost(self, point: Point, talker: Talker) -> bool:
        try:
            self._files.load(point.file, talker)
        except ValueError:
            return True
        return False


def _parse_point(point: str) -> tuple[str, str | None]:
    name, at, snapshot = point.partition("@")
    return name, snapshot if at else None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
