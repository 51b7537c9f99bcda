"""The memories that a server has open: one user at a time, in order of arrival."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from slowwave.memory.private_store import make_private_directory
from slowwave.memory.store import Store
from slowwave.memory.stored_session import StoredSession
from slowwave.memory.talker import Talker
from slowwave.memory.turn import Event
from slowwave.serving.engine import Ended, Engine, Job
from slowwave.serving.monitoring import Key

LOG = logging.getLogger("slowwave.serving")


class Slot:
    """A memory that is open, or about to be."""

    def __init__(self) -> None:
        self.session: StoredSession | None = None
        self.lock = asyncio.Lock()  # which serves those who wait in order
        self.users = 0
        self.last_used = time.monotonic()
        self.idle_sleep: Job | None = None
        self.slept_at = -1
        """Tokens that it had seen when it last slept idle; a gate may have kept the window open."""


class OpenSessions:
    """Opens memories when they are asked for, and closes those that were unused longest.

    Every owner has a store of its own, in a folder of its name; the one without a name has the
    directory itself. To be called in the event loop.
    """

    def __init__(
        self,
        directory: Path,
        talker: Talker,
        engine: Engine,
        *,
        most: int,
        idle_seconds: float,
    ) -> None:
        make_private_directory(directory)
        self._directory, self._talker, self._engine = directory, talker, engine
        self._most, self._idle_seconds = most, idle_seconds
        self._stores: dict[str, Store] = {}
        self._store_locks = collections.defaultdict[str, asyncio.Lock](asyncio.Lock)
        self._slots: dict[Key, Slot] = {}

    def __len__(self) -> int:
        return sum(slot.session is not None for slot in self._slots.values())

    async def store(self, owner: str) -> Store:
        """The store of an owner."""
        async with self._store_locks[owner]:
            if owner not in self._stores:
                self._stores[owner] = await self._engine.call(Store, self._directory / owner)
            return self._stores[owner]

    @contextlib.asynccontextmanager
    async def use(self, key: Key, *, create: bool = False) -> AsyncIterator[StoredSession]:
        """A memory, locked until the end; raises as `Store.open`."""
        async with self._visit(key) as slot:
            yield slot.session or await self._move_in(slot, key, create)

    async def remove(self, key: Key) -> None:
        """Deletes a memory; raises ValueError if there is none, or another process has it."""
        async with self._visit(key) as slot:
            await self._close(slot)
            await self._engine.call((await self.store(key.owner)).delete, key.name)

    def peek(self, key: Key) -> StoredSession | None:
        """A memory if it is open, to be looked at without waiting."""
        slot = self._slots.get(key)
        return slot.session if slot else None

    async def sleep_idle(self, on_event: Callable[[Key, Event], object]) -> None:
        """Lets memories sleep that were not used for a while, one after the other.

        on_event is called in the event loop. What goes wrong with a memory is told to the log; the
        others sleep all the same.
        """
        for key, slot in [*self._slots.items()]:
            if self._engine.is_stopping:
                return
            idle = time.monotonic() - slot.last_used
            if slot.session and not slot.users and idle >= self._idle_seconds:
                try:
                    await self._sleep(key, slot, on_event)
                except Exception:
                    LOG.exception("a memory could not sleep")

    async def close(self) -> None:
        """Closes all memories; nothing may use them any more."""
        for slot in self._slots.values():
            async with slot.lock:
                await self._close(slot)
        self._slots.clear()
        for store in self._stores.values():
            await self._engine.call(store.close)
        self._stores.clear()

    @contextlib.asynccontextmanager
    async def _visit(self, key: Key) -> AsyncIterator[Slot]:
        slot = self._slots.setdefault(key, Slot())
        slot.users += 1
        if slot.idle_sleep is not None:
            self._engine.stop(slot.idle_sleep)  # so that no client waits for it
        try:
            async with slot.lock:
                yield slot
        finally:
            slot.users -= 1
            slot.last_used = time.monotonic()
            if not slot.users and slot.session is None:
                self._slots.pop(key, None)
            await self._close_surplus()

    async def _move_in(self, slot: Slot, key: Key, create: bool) -> StoredSession:
        opening = asyncio.ensure_future(self._open(key, create))
        try:
            session = await asyncio.shield(opening)
        except asyncio.CancelledError:
            slot.session = await opening  # it has its lock by then
            raise
        slot.session = session
        return session

    async def _open(self, key: Key, create: bool) -> StoredSession:
        store = await self.store(key.owner)

        def open_session() -> StoredSession:
            return store.open(key.name, self._talker, create=create)

        return await self._engine.call(open_session)

    async def _close(self, slot: Slot) -> None:
        session, slot.session = slot.session, None
        if session is not None:
            await self._engine.call(session.close)

    async def _close_surplus(self) -> None:
        while len(self) > self._most:
            unused = [
                (slot.last_used, key)
                for key, slot in self._slots.items()
                if slot.session and not slot.users and not slot.lock.locked()
            ]
            if not unused:
                return
            key = min(unused)[1]
            slot = self._slots[key]
            async with slot.lock:
                await self._close(slot)
            if not slot.users:
                self._slots.pop(key, None)

    async def _sleep(self, key: Key, slot: Slot, on_event: Callable[[Key, Event], object]) -> None:
        async with slot.lock:
            session = slot.session
            if session is None or slot.users:
                return
            status = session.status()
            if not status.window_fill or status.tokens_seen == slot.slept_at:
                return
            count = status.num_entries
            (last,) = await self._engine.call(session.ledger, count - 1, count)
            # A gate rejected it, perhaps before the session was opened here.
            if last.kind == "sleep" and not last.is_dream:
                slot.slept_at = status.tokens_seen
                return
            if slot.users or self._engine.is_stopping:
                return
            steps = session.sleep_by_pass(trigger="idle")
            tell = functools.partial(on_event, key)
            slot.idle_sleep = self._engine.start(steps, tell, is_background=True)
            try:
                await slot.idle_sleep.wait()
                slot.slept_at = status.tokens_seen
            except Ended:
                pass  # a client came, or the server stops
            except (OSError, ValueError) as error:
                LOG.warning("a memory could not sleep: %s", error)
            finally:
                slot.idle_sleep = None
                slot.last_used = time.monotonic()
