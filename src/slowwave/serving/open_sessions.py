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
from slowwave.memory.sleep_report import SleepReport
from slowwave.memory.store import Store
from slowwave.memory.stored_session import StoredSession
from slowwave.runtime.model_folder import Talker
from slowwave.serving.engine import Ended, Engine, Job
from slowwave.serving.monitoring import Key

LOG = logging.getLogger("slowwave.serving")


class Place:
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
    """Opens memories when they are asked for, and closes those that nobody used longest.

    Every owner has a store of its own, in a folder of its name; the one without a name has the
    directory itself. To be called in the event loop, as on_sleep is: it hears of sleeps when idle.
    """

    def __init__(
        self,
        directory: Path,
        talker: Talker,
        engine: Engine,
        *,
        most: int,
        idle_seconds: float,
        on_sleep: Callable[[Key, SleepReport], object],
    ) -> None:
        make_private_directory(directory)
        self._directory, self._talker, self._engine = directory, talker, engine
        self._most, self._idle_seconds, self._on_sleep = most, idle_seconds, on_sleep
        self._stores: dict[str, Store] = {}
        self._store_locks = collections.defaultdict[str, asyncio.Lock](asyncio.Lock)
        self._places: dict[Key, Place] = {}

    def __len__(self) -> int:
        return sum(place.session is not None for place in self._places.values())

    async def store(self, owner: str) -> Store:
        """The store of an owner."""
        async with self._store_locks[owner]:
            if owner not in self._stores:
                self._stores[owner] = await self._engine.call(Store, self._directory / owner)
            return self._stores[owner]

    @contextlib.asynccontextmanager
    async def use(self, key: Key, *, create: bool = False) -> AsyncIterator[StoredSession]:
        """A memory, for nobody else until the end; raises as `Store.open`."""
        async with self._visit(key) as place:
            yield place.session or await self._move_in(place, key, create)

    async def remove(self, key: Key) -> None:
        """Deletes a memory; raises ValueError if there is none, or another process has it."""
        async with self._visit(key) as place:
            await self._close(place)
            await self._engine.call((await self.store(key.owner)).delete, key.name)

    def peek(self, key: Key) -> StoredSession | None:
        """A memory if it is open, to be looked at without waiting."""
        place = self._places.get(key)
        return place.session if place else None

    async def sleep_idle(self) -> None:
        """Lets memories sleep that nobody used for a while, one after the other.

        What goes wrong with one of them is told to the log; the others sleep all the same.
        """
        for key, place in [*self._places.items()]:
            if self._engine.is_stopping:
                return
            idle = time.monotonic() - place.last_used
            if place.session and not place.users and idle >= self._idle_seconds:
                try:
                    await self._sleep(key, place)
                except Exception:
                    LOG.exception("a memory could not sleep")

    async def close(self) -> None:
        """Closes all memories; nothing may use them any more."""
        for place in self._places.values():
            async with place.lock:
                await self._close(place)
        self._places.clear()
        for store in self._stores.values():
            await self._engine.call(store.close)
        self._stores.clear()

    @contextlib.asynccontextmanager
    async def _visit(self, key: Key) -> AsyncIterator[Place]:
        place = self._places.setdefault(key, Place())
        place.users += 1
        if place.idle_sleep is not None:
            self._engine.stop(place.idle_sleep)  # whoever comes need not wait for it
        try:
            async with place.lock:
                yield place
        finally:
            place.users -= 1
            place.last_used = time.monotonic()
            if not place.users and place.session is None:
                self._places.pop(key, None)
            await self._close_surplus()

    async def _move_in(self, place: Place, key: Key, create: bool) -> StoredSession:
        opening = asyncio.ensure_future(self._open(key, create))
        try:
            session = await asyncio.shield(opening)
        except asyncio.CancelledError:
            place.session = await opening  # it has its lock by then
            raise
        place.session = session
        return session

    async def _open(self, key: Key, create: bool) -> StoredSession:
        store = await self.store(key.owner)

        def open_session() -> StoredSession:
            return store.open(key.name, self._talker, create=create)

        return await self._engine.call(open_session)

    async def _close(self, place: Place) -> None:
        session, place.session = place.session, None
        if session is not None:
            await self._engine.call(session.close)

    async def _close_surplus(self) -> None:
        while len(self) > self._most:
            unused = [
                (place.last_used, key)
                for key, place in self._places.items()
                if place.session and not place.users and not place.lock.locked()
            ]
            if not unused:
                return
            key = min(unused)[1]
            place = self._places[key]
            async with place.lock:
                await self._close(place)
            if not place.users:
                self._places.pop(key, None)

    async def _sleep(self, key: Key, place: Place) -> None:
        async with place.lock:
            session = place.session
            if session is None or place.users:
                return
            status = session.status()
            if not status.window_fill or status.tokens_seen == place.slept_at:
                return
            count = status.num_entries
            (last,) = await self._engine.call(session.ledger, count - 1, count)
            if last.kind == "sleep":  # which a gate rejected, perhaps before it was opened here
                place.slept_at = status.tokens_seen
                return
            if place.users or self._engine.is_stopping:
                return
            loop, tell = asyncio.get_running_loop(), functools.partial(self._on_sleep, key)
            session.on_sleep = lambda report: loop.call_soon_threadsafe(tell, report)
            steps = session.sleep_by_pass(trigger="idle")
            place.idle_sleep = self._engine.start(steps, is_background=True)
            try:
                await place.idle_sleep.wait()
                place.slept_at = status.tokens_seen
            except Ended:
                pass  # somebody came, or the server stops
            except (OSError, ValueError) as error:
                LOG.warning("a memory could not sleep: %s", error)
            finally:
                place.idle_sleep = None
                place.last_used = time.monotonic()
