"""The memories of a proxy: opened for the time of an exchange, and slept on in words while idle."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

from slowwave.memory.endpoint import Endpoint
from slowwave.memory.names import UnknownName
from slowwave.memory.notebook import Written
from slowwave.memory.notes_config import EndpointConfig, NotesConfig, NotesFile
from slowwave.memory.private_store import make_private_directory
from slowwave.memory.store import Store
from slowwave.memory.text_session import TextSession
from slowwave.serving.config import ServeConfig
from slowwave.serving.engine import Engine
from slowwave.serving.errors import ApiError
from slowwave.serving.monitoring import Key, Metrics
from slowwave.serving.server import RETRY_SECONDS, BaseServer
from slowwave.serving.upstream.call import Call, run_apart

LOG = logging.getLogger("slowwave.serving")

Result = TypeVar("Result")


class Slot:
    """A memory that is in use, or was since the server started."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()  # which serves those who wait in order
        self.users = 0
        self.last_used = time.monotonic()
        self.model = ""
        """The one that replied last."""
        self.is_waiting = False
        """Whether something was said since the notes were looked after."""
        self.sleep: asyncio.Future[Written] | None = None


class UpstreamServer(BaseServer):
    """Make it in a running event loop, and close it there. All methods are for that loop."""

    def __init__(
        self,
        endpoint: EndpointConfig,
        *,
        notes: NotesFile | None,
        memory_dir: Path,
        config: ServeConfig,
        metrics: Metrics,
    ) -> None:
        super().__init__(config, metrics, Engine(0))
        make_private_directory(memory_dir)
        self.endpoint, self.model_name = Endpoint(endpoint), endpoint.url
        self._notes, self._directory = notes, memory_dir
        self._stores: dict[str, Store] = {}
        self._store_locks = collections.defaultdict[str, asyncio.Lock](asyncio.Lock)
        self._slots: dict[Key, Slot] = {}
        self._num_calls = 0
        """Requests to the upstream whose threads have not ended."""
        self._endings = set[Callable[[], object]]()
        self._idle = asyncio.create_task(self._sleep_when_idle())

    async def close(self) -> None:
        """Ends everything; what was acknowledged is on disk."""
        self.stop()
        self._idle.cancel()
        await asyncio.gather(self._idle, return_exceptions=True)
        for end in [*self._endings]:
            end()
        await self._wait_for_turns()
        for store in self._stores.values():
            await self.engine.call(store.close)
        await self.engine.close()

    @contextlib.contextmanager
    def ending(self, end: Callable[[], object]) -> Iterator[None]:
        """`end` is called if the server is closed within."""
        self._endings.add(end)
        try:
            yield
        finally:
            self._endings.discard(end)

    async def store(self, owner: str) -> Store:
        """The store of an owner, in a folder of its name."""
        async with self._store_locks[owner]:
            if owner not in self._stores:
                self._stores[owner] = await self.engine.call(Store, self._directory / owner)
            return self._stores[owner]

    @contextlib.asynccontextmanager
    async def use(self, key: Key, *, create: bool = False) -> AsyncIterator[TextSession]:
        """A memory, locked until the end; raises as `Store.open_text`."""
        async with self.visit(key):
            store = await self.store(key.owner)
            opening = asyncio.ensure_future(
                self.engine.call(lambda: store.open_text(key.name, create=create))
            )
            try:
                session = await asyncio.shield(opening)
            except asyncio.CancelledError:
                (await opening).close()  # it has its lock by then
                raise
            with session:
                yield session

    @contextlib.asynccontextmanager
    async def visit(self, key: Key) -> AsyncIterator[None]:
        """Nobody else in this server uses the memory within."""
        slot = self._slots.setdefault(key, Slot())
        slot.users += 1
        try:
            async with slot.lock:
                yield
        finally:
            slot.users -= 1
            slot.last_used = time.monotonic()
            if not (slot.users or slot.model or slot.sleep):
                self._slots.pop(key, None)

    async def remove(self, key: Key) -> None:
        """Deletes a memory; raises ValueError if there is none, or another process has it."""
        async with self.visit(key):
            store = await self.store(key.owner)
            await see_through(self.engine.call(store.delete, key.name))
            slot = self._slots[key]
            slot.is_waiting, slot.model = False, ""

    def call(self, path: str, content: bytes | None) -> Call:
        """A request to the upstream; raises ApiError while as many as may wait here are under way.

        One whose client has gone is under way until the upstream answers.
        """
        if self._num_calls >= self.config.max_queue:
            raise ApiError(
                429,
                f"{self._num_calls} requests wait for the upstream already; come back later",
                code="queue_full",
                retry_after=RETRY_SECONDS,
            )
        self._num_calls += 1
        return Call(self.endpoint, path, content, self._end_call)

    def _end_call(self) -> None:
        self._num_calls -= 1

    def note_turn(self, key: Key, model: str) -> None:
        """A model has replied, so that there is something to sleep on."""
        slot = self._slots[key]
        slot.model, slot.is_waiting = model, True

    async def sleep(self, key: Key) -> Written:
        """Lets notes and episodes be written; those who come meanwhile wait for the same.

        Raises ValueError if there is no such memory, ApiError if no endpoint can write them.
        """
        store = await self.store(key.owner)
        await self.engine.call(store.info, key.name)
        slot = self._slots.setdefault(key, Slot())
        if slot.sleep is None:
            endpoint, config = self._find_writer(slot)
            folder, slot.is_waiting = store.directory, False
            slot.sleep = run_apart(lambda: _write(folder, key.name, endpoint, config))
            slot.sleep.add_done_callback(lambda done: _end_sleep(slot, done))
        return await asyncio.shield(slot.sleep)

    def _find_writer(self, slot: Slot) -> tuple[Endpoint, NotesConfig]:
        if self._notes is not None:
            return Endpoint(self._notes.endpoint), self._notes.notes
        if not slot.model:
            raise ApiError(
                409,
                "no model has replied in this memory since the server started, so none is known "
                "to write its notes; say something first, or start the server with --notes FILE",
                code="no_writer",
            )
        # Some models refuse limits and temperatures that are set.
        config = dataclasses.replace(
            self.endpoint.config, model=slot.model, max_tokens=None, temperature=None
        )
        return Endpoint(config), NotesConfig()

    async def _sleep_when_idle(self) -> None:
        if not self.config.idle_seconds:
            return
        while not self.is_stopping:
            for key, slot in [*self._slots.items()]:
                is_idle = time.monotonic() - slot.last_used >= self.config.idle_seconds
                if not (slot.is_waiting and is_idle) or slot.users:
                    continue
                try:
                    await self._try_to_sleep(key, slot)
                except Exception:
                    LOG.exception("a memory could not sleep")
            await self._rest()

    async def _try_to_sleep(self, key: Key, slot: Slot) -> None:
        """What goes wrong is told to the log, and tried again after as long."""
        try:
            written = await self.sleep(key)
            why = written.why if written.outcome == "failed" else ""
        except UnknownName:  # it was deleted meanwhile
            slot.is_waiting, why = False, ""
        except (OSError, ValueError, ApiError) as error:
            why = str(error)
        if why:
            slot.is_waiting, slot.last_used = True, time.monotonic()
            LOG.warning("the notes of a memory could not be written: %s", why)


def _write(folder: Path, name: str, endpoint: Endpoint, config: NotesConfig) -> Written:
    """In a store of its own, since it may outlive that of the server."""
    with Store(folder) as store:
        return store.notebook(name).sleep(endpoint, config)


def _end_sleep(slot: Slot, done: asyncio.Future[Written]) -> None:
    slot.sleep = None
    if not done.cancelled():
        done.exception()  # nobody need wait for it any more


async def see_through(work: Awaitable[Result]) -> Result:
    """The result of what must not be left half way; who is cancelled meanwhile waits for it, as
    often as that happens."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return task.result()
