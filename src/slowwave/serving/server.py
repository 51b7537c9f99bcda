"""What a server is made of, and how a piece of work goes through it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from slowwave.memory.session import Session
from slowwave.memory.sleep_report import SleepReport
from slowwave.memory.stored_session import StoredSession
from slowwave.memory.talker import Talker
from slowwave.memory.turn import Event, Progress, Steps
from slowwave.serving.access import ApiKeys
from slowwave.serving.config import ServeConfig
from slowwave.serving.engine import Ended, Engine, Job
from slowwave.serving.errors import ApiError, shutting_down, too_late
from slowwave.serving.monitoring import Feed, Key, Metrics
from slowwave.serving.open_sessions import OpenSessions

IDLE_ROUNDS = 1.0
"""Seconds between looks for memories to sleep on."""
WINDOW_ROUNDS = 0.1
"""Seconds between two events that tell how full a window is."""
RETRY_SECONDS = 1


class BaseServer:
    """What servers of models here and elsewhere have in common. All methods are for their loop."""

    is_lenient = False
    """Whether fields of a request that cannot be served are left out, and not refused."""

    def __init__(self, config: ServeConfig, metrics: Metrics, engine: Engine) -> None:
        self.config, self.metrics, self.engine = config, metrics, engine
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._num_turns = 0
        metrics.watch("open_turns", "Turns that are open or wait", lambda: self._num_turns)

    @property
    def is_stopping(self) -> bool:
        """Whether it takes no more work."""
        return self._stopping.is_set()

    def stop_soon(self) -> None:
        """As `stop`, for signals and other threads."""
        self._loop.call_soon_threadsafe(self.stop)

    def stop(self) -> None:
        """Takes no more work."""
        self._stopping.set()

    @contextlib.contextmanager
    def take_place(self) -> Iterator[None]:
        """A place in the queue; raises ApiError if there is none, or the server stops."""
        self._require_running()
        if self._num_turns >= self.config.max_queue:
            raise ApiError(
                429,
                f"{self._num_turns} turns are waiting already; come back later",
                code="queue_full",
                retry_after=RETRY_SECONDS,
            )
        self._num_turns += 1
        try:
            yield
        finally:
            self._num_turns -= 1

    async def _wait_for_turns(self) -> None:
        while self._num_turns:
            await asyncio.sleep(0.01)

    async def _rest(self) -> None:
        """Waits until the next look for memories to sleep on, or until the server stops."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), IDLE_ROUNDS)

    def _require_running(self) -> None:
        if self.is_stopping:
            raise shutting_down()


class Server(BaseServer):
    """Make it in a running event loop, and close it there. All methods are for that loop."""

    def __init__(
        self,
        talker: Talker,
        *,
        model_name: str,
        memory_dir: Path,
        config: ServeConfig,
        keys: ApiKeys,
        metrics: Metrics,
        lenient: bool,
    ) -> None:
        super().__init__(config, metrics, Engine(config.workers))
        self.is_lenient = lenient
        self.talker, self.model_name, self.keys, self.feed = talker, model_name, keys, Feed()
        self.started = int(time.time())
        self.sessions = OpenSessions(
            memory_dir,
            talker,
            self.engine,
            most=config.max_open_sessions,
            idle_seconds=config.idle_seconds,
        )
        metrics.watch("open_sessions", "Memories that are open", lambda: len(self.sessions))
        self._idle = asyncio.create_task(self._sleep_when_idle())

    def stop(self) -> None:
        """Takes no more work, and ends all turns, each kept as far as it is."""
        super().stop()
        self.feed.close()
        self.engine.stop_all()

    async def close(self) -> None:
        """Ends everything; what was acknowledged is on disk."""
        self.stop()
        await self._idle
        await self._wait_for_turns()
        await self.sessions.close()
        await self.engine.close()

    @contextlib.asynccontextmanager
    async def use(self, key: Key | None, *, create: bool = False) -> AsyncIterator[Session]:
        """A memory, locked until the end, or without a key one that is thrown away."""
        if key is None:
            yield self.talker.session()
            return
        async with self.sessions.use(key, create=create) as session:
            yield session

    @contextlib.asynccontextmanager
    async def use_stored(self, key: Key, *, create: bool = False) -> AsyncIterator[StoredSession]:
        """A memory, locked until the end; raises ApiError as take_place."""
        with self.take_place():
            async with self.sessions.use(key, create=create) as session:
                self._require_running()
                yield session

    def start(
        self,
        key: Key | None,
        session: Session,
        steps: Steps[Any],
        on_event: Callable[[Event], object] | None = None,
    ) -> Job:
        """Does something with a session, step by step, and tells the memory's watchers of it.

        on_event is called in the event loop. What the steps return, the job's `wait` returns.
        """
        self._require_running()
        looked = 0.0

        def tell(event: Event) -> None:
            nonlocal looked
            self._tell_of_sleep(key, event)
            if on_event is not None:
                on_event(event)
            if key is None or not isinstance(event, Progress):
                return
            if time.monotonic() - looked > WINDOW_ROUNDS:
                looked = time.monotonic()
                self._tell_of_window(key, session, event.next)

        def end(_: object) -> None:
            for report in session.take_late_sleeps():
                tell(report)
            if key is not None:
                self._tell_of_window(key, session, "rest")

        job = self.engine.start(steps, tell)
        job.result.add_done_callback(end)
        return job

    async def work_in_time(
        self, key: Key, session: Session, steps: Steps[Any]
    ) -> tuple[Any, list[SleepReport]]:
        """Starts steps, and returns what they return, and the sleeps in them.

        Raises ApiError where that takes too long: it has not been done then.
        """
        sleeps, seconds = list[SleepReport](), self.config.request_seconds

        def note(event: Event) -> None:
            if isinstance(event, SleepReport):
                sleeps.append(event)

        job = self.start(key, session, steps, note)
        alarm = self._loop.call_later(seconds, self.engine.stop, job)
        try:
            return await job.wait(), sleeps
        except Ended:
            if self.is_stopping:
                raise
            raise too_late(seconds, "nothing was done") from None
        finally:
            alarm.cancel()

    def tell_of_change(self, key: Key, session: Session) -> None:
        """To those who watch a memory: more than its end has changed."""
        self.feed.publish(key, "change", describe_status(key.name, session))

    def _tell_of_window(self, key: Key, session: Session, doing: str) -> None:
        status = session.status()
        self.feed.publish(
            key,
            "window",
            {
                "doing": doing,
                "tokens_seen": status.tokens_seen,
                "window_fill": status.window_fill,
                "window": status.window,
                "num_sleeps": status.num_sleeps,
            },
        )

    def _tell_of_sleep(self, key: Key | None, event: Event) -> None:
        """Counts the sleep that an event tells of, if it does, and tells the memory's watchers."""
        if isinstance(event, SleepReport):
            self.metrics.sleeps.labels(event.trigger).inc()
            self.metrics.sleep_seconds.inc(event.milliseconds / 1000)
            if key is not None:
                self.feed.publish(key, "sleep", dataclasses.asdict(event))

    async def _sleep_when_idle(self) -> None:
        if not self.config.idle_seconds or self.talker.sleep.eviction == "none":
            return
        while not self.is_stopping:
            await self.sessions.sleep_idle(self._tell_of_sleep)
            await self._rest()


def describe_status(name: str, session: Session) -> dict[str, Any]:
    """A memory that is open, as it is now."""
    return {"name": name, "status": dataclasses.asdict(session.status())}
