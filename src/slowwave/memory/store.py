"""A memory store: one directory that keeps sessions for as long as they live.

catalogue.sqlite has what was read and said, states/ what became of it, locks/ who is at it.
docs/memory-store.md describes them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from slowwave.memory.catalogue_reads import find_point, find_session, has_session, split_point
from slowwave.memory.catalogue_rows import Point, SessionRow, Snapshot, Step
from slowwave.memory.config import GateConfig
from slowwave.memory.ledger import Entry
from slowwave.memory.leftovers import Leftovers
from slowwave.memory.names import Damaged, TakenName, check_name, is_fit, is_readable
from slowwave.memory.notebook import Notebook
from slowwave.memory.owner import Owner, own, own_words
from slowwave.memory.private_store import LOCKS, SessionLock, make_private
from slowwave.memory.replay import OnRead, replay, resleep
from slowwave.memory.session import Session
from slowwave.memory.session_file import (
    gather_session,
    pack_session,
    plant_session,
    read_session_file,
)
from slowwave.memory.sleep_report import SleepReport, place_sleeps
from slowwave.memory.state_files import check_replay, check_tail, load_state, read_ledger
from slowwave.memory.store_view import SessionInfo, StoreView
from slowwave.memory.stored_session import StoredSession, reach
from slowwave.memory.text_session import TextSession
from slowwave.runtime.config import Sampling
from slowwave.runtime.model_folder import TalkingModel
from slowwave.storage.files import write_atomically

PATIENCE_SECONDS = 0.05
"""How long others are waited for who have a lock, or write, for a moment."""


class Store(StoreView):
    """Opens the store in a directory, which is made if it is not there.

    Points of sessions are named as "session", the head, or as "session@snapshot". Any number of
    processes may use a store; one at a time has a session open. What is in it is its owner's alone.
    On a disk that is full or read-only, what is there can be looked at; on a full one also deleted.

    Raises ValueError if the catalogue is damaged, foreign or of a newer format, OSError if the disk
    fails, or has no room for a new store.
    """

    def __init__(self, directory: str | Path) -> None:
        make_private(Path(directory))
        super().__init__(Path(directory))
        locks = self.directory / LOCKS
        self._leftovers = Leftovers(self._catalogue, self._files, locks)
        self._leftovers.try_to_sweep()
        self._leftovers.clear_rest()

    def close(self) -> None:
        """Closes the catalogue; sessions must be closed before."""
        self._leftovers.clear_rest()
        self._catalogue.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def is_wiped(self) -> bool:
        """Whether nothing is left on disk of what was deleted; see `StoredSession.is_wiped`."""
        return self._leftovers.is_wiped()

    def open(
        self,
        name: str,
        talker: TalkingModel,
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
            self._require(name, own(talker, gate))
        row, lock = self._lock(name)
        try:
            row.owner.require_talker(name, talker)
            gate = row.owner.require_gate(name, gate)
            self._leftovers.try_to_sweep(row.id)
            check_tail(self._catalogue, row.head, talker)
            try:
                state = load_state(self._catalogue, self._files, row.head, talker)
            except ValueError as error:
                raise Damaged(
                    f"session {name!r} lost its state, but not its ledger: rebuild it from that "
                    f"({error})"
                ) from None
            return StoredSession(
                talker,
                self._catalogue,
                self._files,
                self._leftovers,
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

    def open_text(self, name: str, *, create: bool = False) -> TextSession:
        """Opens a session whose model runs elsewhere, or with `create` a new one if it is missing.

        Raises ValueError if it is not there, is open elsewhere, or is of a model on this machine.
        """
        if create:
            self._require(name, own_words())
        row, lock = self._lock(name)
        try:
            row.owner.require_elsewhere(name)
        except BaseException:
            lock.release()
            raise
        return TextSession(self._catalogue, self._leftovers, row, lock)

    def fork(self, point: str, name: str) -> SessionInfo:
        """A new session with the past of a session or snapshot; nothing is copied."""
        check_name("session", name)
        with self._catalogue.writing() as db:
            source = find_session(db, split_point(point)[0])
            self._catalogue.fork(source, name, find_point(db, point))
        return self.info(name)

    def delete(self, name: str) -> None:
        """Removes a session with its snapshots; forks keep what they share with it.

        `is_wiped` says whether no trace is left.
        """
        with self._holding(name) as row:
            self._leftovers.clear(self._catalogue.delete(row), row.id)

    def snapshot(self, name: str, snapshot: str) -> Snapshot:
        """As `StoredSession.snapshot`, of a session that is not open, without its model."""
        with self._holding(name) as row:
            return self._catalogue.snapshot(row, check_name("snapshot", snapshot))

    def rollback(self, name: str, snapshot: str) -> SessionInfo:
        """As `StoredSession.rollback`, of a session that is not open, without its model."""
        with self._holding(name) as row:
            point = self._find(f"{name}@{snapshot}")
            if point.file is not None:
                self._files.read(point.file)
            self._leftovers.clear(self._catalogue.roll_back(row, snapshot)[1], row.id)
            return self.info(name)

    def drop_snapshot(self, name: str, snapshot: str) -> None:
        """As `StoredSession.drop_snapshot`, of a session that is not open, without its model."""
        with self._holding(name) as row:
            self._leftovers.clear(self._catalogue.drop_snapshot(row, snapshot), row.id)

    def rebuild(
        self, name: str, talker: TalkingModel, *, on_read: OnRead | None = None
    ) -> list[str]:
        """Replays the ledger wherever the state of a session or of its snapshots cannot be read.

        on_read: is told how far a replay is. Returns the points that were rebuilt. Raises
        ValueError if another model, tokenizer or setting read it: `resleep` moves it there.
        """
        with self._holding(name) as row:
            row.owner.require_talker(name, talker)
            gate = row.owner.parse_gate()
            points = {name: row.head}
            for snapshot in self.info(name).snapshots:
                points[f"{name}@{snapshot.name}"] = snapshot.point
            lost = {name: point for name, point in points.items() if self._is_lost(point, talker)}
            with self._sweeping(row.id):
                for point in lost.values():
                    entries = read_ledger(self._catalogue, point)
                    check_replay(self._catalogue, enumerate(entries), talker.tokenizer)
                    rebuilt = replay(lambda: Session(talker, gate=gate), entries, on_read)
                    self._catalogue.replace_file(point, self._files.save(rebuilt, row.id))
            return list(lost)

    def resleep(
        self,
        point: str,
        name: str,
        talker: TalkingModel,
        *,
        gate: GateConfig | None = None,
        on_read: OnRead | None = None,
    ) -> SessionInfo:
        """A new session, of another model, that went through the ledger of a point.

        gate: that of the session, if none is given. on_read: is told how far it is. Raises
        ValueError if something of the ledger is deleted before it is done: nothing comes back.
        """
        check_name("session", name)
        owner = self._find_session(point).owner
        gate = gate or owner.parse_gate()
        ledger = self._read_ledger(point)
        entries = [*ledger.values()]
        is_same = owner.tokenizer == talker.tokenizer.fingerprint
        check_replay(self._catalogue, enumerate(entries), talker.tokenizer if is_same else None)
        if name in self.names():  # or an hour's replay comes to nothing
            raise ValueError(f"session {name!r} is there already; choose another name")
        session = resleep(lambda: Session(talker, gate=gate), entries, on_read)
        sleeps = place_sleeps(session.entries, session.sleeps)
        with self._sweeping(), self._catalogue.writing():
            self._require_still_there(point, ledger)
            row = self._create(name, talker, gate)
            reached = reach(self._files.save(session, row.id), session.state)
            self._catalogue.advance(row, [*map(Step, session.entries, sleeps)], reached)
        return self.info(name)

    def notebook(self, name: str) -> Notebook:
        """The notes and episodes of a session, which may be open in another process."""
        return Notebook(self._catalogue, self._leftovers, self._find_session(name).name)

    def export(self, name: str, path: str | Path) -> None:
        """Writes a session, with its snapshots, as one file that `import_session` reads."""
        write_atomically(Path(path), self.pack(name), private=True)

    def pack(self, name: str) -> bytes:
        """What `export` writes."""
        with self._catalogue.holding():
            session = gather_session(self._find_session(name), self._catalogue, self._files)
        return pack_session(session)

    def import_session(self, path: str | Path, name: str | None = None) -> SessionInfo:
        """Takes in an exported session, under its own name if none is given.

        Raises ValueError, and leaves nothing, if the file is damaged or the name is taken.
        """
        file = read_session_file(Path(path))
        manifest = file.manifest
        if name is None and not is_fit(manifest.name):
            raise ValueError(
                f"{path}: its session is called {manifest.name!r:.80}, which is unfit; name it anew"
            )
        for snapshot in manifest.snapshots:
            if not is_readable(snapshot.name):
                raise ValueError(f"{path}: snapshot name {snapshot.name!r:.80} is unfit")
        name = manifest.name if name is None else check_name("session", name)
        try:
            with self._sweeping(), self._catalogue.writing():
                row = self._catalogue.create(name, manifest.owner)
                plant_session(file, row, self._catalogue, self._files)
        except (TakenName, Damaged):
            raise
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        return self.info(name)

    def _create(self, name: str, talker: TalkingModel, gate: GateConfig | None) -> SessionRow:
        return self._catalogue.create(check_name("session", name), own(talker, gate))

    def _require(self, name: str, owner: Owner) -> None:
        """Makes a session of an owner, if there is none of the name."""
        with self._catalogue.writing() as db:
            if not has_session(db, name):
                self._catalogue.create(check_name("session", name), owner)

    def _lock(self, name: str) -> tuple[SessionRow, SessionLock]:
        """Takes a session's lock, and then looks where it stands."""
        row = self._find_session(name)
        self._catalogue.require_writable()
        lock = self._leftovers.lock(row.id, name, seconds=PATIENCE_SECONDS)
        try:
            found = self._find_session(name)
            if found.id != row.id:
                raise ValueError(f"session {name!r} was deleted and made anew; open it again")
            return found, lock
        except BaseException:
            lock.release()
            raise

    @contextlib.contextmanager
    def _holding(self, name: str) -> Iterator[SessionRow]:
        """The session, locked for the time within."""
        row, lock = self._lock(name)
        try:
            yield row
        finally:
            lock.release()

    @contextlib.contextmanager
    def _sweeping(self, held: int | None = None) -> Iterator[None]:
        """State files that are written within and not named are gone at its end."""
        try:
            yield
        finally:
            self._leftovers.try_to_sweep(held, seconds=PATIENCE_SECONDS)

    def _require_still_there(self, point: str, ledger: dict[int, Entry]) -> None:
        """Raises ValueError if a point no longer leads through what was its ledger."""
        found = self._read_ledger(point)
        if [*found.items()][: len(ledger)] != [*ledger.items()]:
            raise ValueError(
                f"something was deleted from {point!r} while it was slept on anew; do it again"
            )

    def _is_lost(self, point: Point, talker: TalkingModel) -> bool:
        try:
            load_state(self._catalogue, self._files, point, talker)
        except Damaged:
            return True
        return False
