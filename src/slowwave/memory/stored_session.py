"""A session whose every turn is on disk before it counts."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from slowwave.memory.catalogue import Catalogue, count_leading
from slowwave.memory.catalogue_reads import (
    find_session,
    find_snapshot,
    read_carriers,
    read_keyed_entries,
)
from slowwave.memory.catalogue_rows import Reached, SessionRow, Snapshot, Step
from slowwave.memory.config import DreamConfig, GateConfig
from slowwave.memory.ledger import Entry
from slowwave.memory.leftovers import Leftovers
from slowwave.memory.names import check_name
from slowwave.memory.private_store import SessionLock
from slowwave.memory.replay import ForgetPlan, OnRead, plan_forgetting, replay_by_step
from slowwave.memory.session import Session
from slowwave.memory.sleep_report import SleepReport, place_sleeps
from slowwave.memory.state_files import StateFiles, check_replay, load_state, read_ledger
from slowwave.memory.turn import Progress, Result, Status, Steps, finish
from slowwave.runtime.config import Sampling
from slowwave.runtime.model_folder import TalkingModel
from slowwave.state import MemoryState


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Forgetting:
    """What forgetting would do to a stored session."""

    plan: ForgetPlan
    snapshots: tuple[str, ...]
    """Its snapshots that carry something of what goes, and go with it."""
    also_in: tuple[str, ...]
    """Other sessions that keep something of what goes; forget it there too."""

    @classmethod
    def preview(
        cls,
        catalogue: Catalogue,
        row: SessionRow,
        *,
        sources: Collection[str],
        places: Collection[int],
        keep: Collection[int],
    ) -> Forgetting:
        """Raises ValueError as `plan_forgetting`, and if nothing is named or there."""
        if not (sources or places) or not row.head.num_entries:
            raise ValueError("there is nothing to forget; name sources or places of the ledger")
        with catalogue.reading() as db:
            ids, entries = zip(*read_keyed_entries(db, row.head).items(), strict=True)
            plan = plan_forgetting(entries, sources=sources, places=places, keep=keep)
            carriers = read_carriers(db, [ids[place] for place in plan.dropped])
        return cls(
            plan=plan,
            snapshots=tuple(mark for name, mark in carriers if name == row.name and mark),
            also_in=tuple(sorted({name for name, _ in carriers if name != row.name})),
        )


class StoredSession(Session):
    """A session of a store, which opens it (`Store.open`) and lets only one process have it.

    A turn is acknowledged when `read`, `generate`, `sleep` or `repeat` returns, or what `stream`
    returned is exhausted or closed: ledger and state are on disk then, and outlive any kill. Where
    that fails, the session is as it was before the turn, and OSError or ValueError says why.

    entries and sleeps hold the open turn alone; `ledger` has all of it.
    """

    def __init__(
        self,
        talker: TalkingModel,
        catalogue: Catalogue,
        files: StateFiles,
        leftovers: Leftovers,
        row: SessionRow,
        state: MemoryState,
        lock: SessionLock,
        *,
        sampling: Sampling | None = None,
        on_sleep: Callable[[SleepReport], object] | None = None,
        gate: GateConfig | None = None,
    ) -> None:
        super().__init__(talker, sampling=sampling, on_sleep=on_sleep, gate=gate)
        self._catalogue, self._files, self._leftovers = catalogue, files, leftovers
        self._row, self._lock = row, lock
        self.state = self._kept = state
        self._start = row.head
        """The point at which the turn began."""
        self._in_turn = self._is_closed = False
        self._turns = weakref.WeakSet[Steps[Any]]()

    @property
    def name(self) -> str:
        """What the store calls it."""
        return self._row.name

    def take_turn(
        self,
        told: Sequence[Entry],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        sampling: Sampling | None = None,
        instead: bool = False,
    ) -> Steps[None]:
        """See `Session.take_turn`.

        instead: this turn takes the place of the last one, and goes on from before it; until its
        end that one stays. Raises ValueError if that cannot be (`last_turn`).
        """
        steps = super().take_turn(told, max_new_tokens=max_new_tokens, stop=stop, sampling=sampling)
        return self._hold(steps, instead=instead)

    def sleep_by_pass(
        self, passes: int | None = None, *, trigger: Literal["asked", "idle"] = "asked"
    ) -> Steps[SleepReport | None]:
        """See `Session.sleep_by_pass`."""
        return self._hold(super().sleep_by_pass(passes, trigger=trigger))

    def dream_by_step(self, config: DreamConfig | None = None) -> Steps[SleepReport]:
        """See `Session.dream_by_step`."""
        return self._hold(super().dream_by_step(config))

    def repeat_by_step(self, entry: Entry) -> Steps[Tensor | None]:
        """See `Session.repeat_by_step`."""
        return self._hold(super().repeat_by_step(entry))

    def load(self, path: str | Path) -> None:
        """Raises ValueError: the ledger of a stored session leads to its state."""
        raise ValueError(
            f"session {self.name!r} is in a store, whose ledger {path} is not of; load it into a "
            "session of its own"
        )

    def status(self) -> Status:
        """See `Session.status`."""
        stored = self._row.head.num_entries
        return dataclasses.replace(super().status(), num_entries=stored + len(self.entries))

    def __repr__(self) -> str:
        is_closed = " is_closed" if self._is_closed else ""
        return f"<{type(self).__name__} {self.name!r} {self.status()}{is_closed}>"

    def is_wiped(self) -> bool:
        """Whether nothing is left on disk of what was deleted from the store.

        Something is left while another process reads what was there, or where the disk is full: the
        next turn, or the next opening of the store, tries again.
        """
        return self._leftovers.is_wiped()

    def ledger(self, start: int = 0, stop: int | None = None) -> list[Entry]:
        """All acknowledged entries, from the first, or those at the places start..stop."""
        return read_ledger(self._catalogue, self._row.head, start, stop)

    def last_turn(self) -> tuple[int, list[Entry]] | None:
        """The last turn that can be taken anew: its first place in the ledger, and its entries.

        With the sleeps since then. None if there is none, as after a rollback.
        """
        before = self._row.before
        if before is None or not self._files.has(before.file):
            return None
        return before.num_entries, self.ledger(before.num_entries)

    def snapshot(self, name: str) -> Snapshot:
        """Gives the last acknowledged turn a name; raises ValueError if it is unfit or taken."""
        self._require_rest()
        return self._catalogue.snapshot(self._row, check_name("snapshot", name))

    def rollback(self, snapshot: str) -> None:
        """Goes back, or forth, to a snapshot; what has none and was read since is gone.

        Raises ValueError if there is no such snapshot, or its state cannot be read.
        """
        self._require_rest()
        with self._catalogue.reading() as db:
            point = find_snapshot(db, self._row.id, snapshot).point
        state = load_state(self._catalogue, self._files, point, self.talker)
        self._row, removed = self._catalogue.roll_back(self._row, snapshot)
        self._arrive(state, removed)

    def drop_snapshot(self, name: str) -> None:
        """Forgets a snapshot; raises ValueError, which lists those there are."""
        self._require_rest()
        removed = self._catalogue.drop_snapshot(self._row, name)
        self._leftovers.clear(removed, self._row.id)

    def preview_forgetting(
        self,
        *,
        sources: Collection[str] = (),
        places: Collection[int] = (),
        keep: Collection[int] = (),
    ) -> Forgetting:
        """What goes if sources and places are forgotten; see `plan_forgetting` for the rules."""
        self._require_rest()
        return Forgetting.preview(
            self._catalogue, self._row, sources=sources, places=places, keep=keep
        )

    def forget(self, forgetting: Forgetting, *, on_read: OnRead | None = None) -> None:
        """Does what `preview_forgetting` showed: the session is as if given the rest alone.

        Until the last moment it is as before; then all of it changes at once. `is_wiped` says
        whether no trace is left. on_read: is told how far the replay of the rest is. Raises
        ValueError if the ledger is no longer that of the preview.
        """
        finish(self.forget_by_step(forgetting, on_read=on_read))

    def forget_by_step(
        self, forgetting: Forgetting, *, on_read: OnRead | None = None
    ) -> Steps[None]:
        """As `forget`, in steps; closed before its end nothing is forgotten."""
        self._require_rest()
        plan = forgetting.plan
        if list(plan.entries) != self.ledger():
            raise ValueError("the ledger is not that of the preview; make a new one")
        placed = zip(plan.kept, plan.kept_entries, strict=True)
        check_replay(self._catalogue, placed, self.talker.tokenizer)
        rest = Session(self.talker, gate=self.gate)
        yield from replay_by_step(rest, plan.kept_entries, on_read)
        yield Progress("record")
        kept = count_leading(plan.kept)
        steps = [*map(Step, rest.entries, place_sleeps(rest.entries, rest.sleeps))][kept:]
        file = self._files.save(rest, self._row.id)
        try:
            self._row, removed = self._catalogue.rewrite(
                self._row, plan.kept, steps, reach(file, rest.state), forgetting.snapshots
            )
        except BaseException:
            self._settle(file, rest.state)
            raise
        self._arrive(rest.state, removed)

    def close(self) -> None:
        """Ends an open reply, and lets other processes have the session."""
        try:
            for turn in [*self._turns]:
                turn.close()
        finally:
            self._is_closed = True
            self._lock.release()

    def __enter__(self) -> StoredSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _recent(self, count: int) -> list[Entry]:
        """See `Session._recent`."""
        stored = self._start.num_entries
        earlier = read_ledger(self._catalogue, self._start, max(0, stored - count), stored)
        return [*earlier, *self.entries][-count:]

    def _hold(self, steps: Steps[Result], *, instead: bool = False) -> Steps[Result]:
        """The steps of a turn, which `close` ends."""
        held = self._take(steps, instead)
        self._turns.add(held)
        return held

    def _take(self, steps: Steps[Result], instead: bool) -> Steps[Result]:
        with self._turn(instead):
            return (yield from steps)

    @contextlib.contextmanager
    def _turn(self, instead: bool) -> Iterator[None]:
        """What happens within is one turn, and recorded at its end."""
        if self._in_turn:
            yield
            return
        self._require_open()
        if instead:
            self._step_back()
        self._start = (self._row.before if instead else None) or self._row.head
        self._in_turn = True
        try:
            yield
        finally:
            self._in_turn = False
            if not sys.is_finalizing():
                self._record_turn(instead) if self.entries else self._settle(None, self.state)

    def _step_back(self) -> None:
        """Stands where the session stood before its last turn, for the time of another."""
        before = self._row.before
        if before is None:
            raise ValueError(f"session {self.name!r} has no last turn that could be taken anew")
        self.state = load_state(self._catalogue, self._files, before, self.talker)

    def _record_turn(self, instead: bool) -> None:
        """The state file first, then the one transaction that names it."""
        start, file = self._start, None
        try:
            self._require_open()
            slept = start.tokens_seen - start.window_fill
            sleeps = place_sleeps(self.entries, self.sleeps, start=start.tokens_seen, slept=slept)
            steps = [*map(Step, self.entries, sleeps)]
            file = self._files.save(self, self._row.id)
            self._row, removed = self._catalogue.advance(
                self._row, steps, reach(file, self.state), instead=instead
            )
        except OSError as error:
            self._settle(file, self.state)
            raise OSError(
                error.errno,
                f"{error.strerror}: the turn is not recorded and the session is as before it; "
                "make room and say it again",
                error.filename,
            ) from error
        except BaseException:
            self._settle(file, self.state)
            raise
        self._kept, self.entries, self.sleeps = self.state, [], []
        self._files.remove(removed)
        self._leftovers.clear_rest(self._row.id)

    def _settle(self, file: str | None, state: MemoryState) -> None:
        """After a failure: stands where the catalogue does, for that may have come after it."""
        self.state, self.entries, self.sleeps = self._kept, [], []
        if file is None:
            return
        with self._catalogue.reading() as db:
            row = find_session(db, self.name)
        if row.head.file == file:
            self._row, self.state, self._kept = row, state, state
        else:
            self._files.remove([file])

    def _arrive(self, state: MemoryState, removed: list[str]) -> None:
        self.state = self._kept = state
        self._leftovers.clear(removed, self._row.id)

    def _require_rest(self) -> None:
        self._require_open()
        self._require_no_reply()

    def _require_open(self) -> None:
        if self._is_closed:
            raise ValueError(f"session {self.name!r} is closed; open it again")
        if not self._lock.is_held:
            raise ValueError(
                f"session {self.name!r} is open in the process that this one was forked from; "
                "close it there, and open it here"
            )


def reach(file: str | None, state: MemoryState) -> Reached:
    """What the catalogue keeps of a state and its file."""
    return Reached(file, *state.counters)
