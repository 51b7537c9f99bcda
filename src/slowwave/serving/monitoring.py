"""Numbers for Prometheus, and the events of each memory for its watchers."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from slowwave.memory.names import check_name, is_readable

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Upper ends of a histogram's buckets."""
MOST_WAITING = 256
"""Events that wait for a slow watcher; older ones are dropped."""


class Metrics:
    """Counters of a server; each server has a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        counter = functools.partial(Counter, registry=self._registry)
        self.requests = counter("slowwave_requests", "Requests answered", ["route", "status"])
        self.tokens_read = counter("slowwave_tokens_read", "Tokens that were told and read")
        self.tokens_remembered = counter(
            "slowwave_tokens_remembered", "Tokens that requests repeated and memories had already"
        )
        self.tokens_written = counter("slowwave_tokens_written", "Tokens of replies")
        self.sleeps = counter("slowwave_sleeps", "Sleeps by what called for them", ["trigger"])
        self.sleep_seconds = counter("slowwave_sleep_seconds", "Seconds of work on sleeps")
        self.first_token = Histogram(
            "slowwave_first_token_seconds",
            "Seconds from a request to the first token of its reply",
            buckets=SECONDS,
            registry=self._registry,
        )

    def watch(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Adds a gauge whose value is looked up at each request for the metrics."""
        Gauge(f"slowwave_{name}", description, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """All metrics in Prometheus' format."""
        return generate_latest(self._registry)


class Key(NamedTuple):
    """A memory among those of all owners."""

    owner: str
    name: str


def make_key(owner: str, name: str) -> Key:
    """The key of a memory that may be new; raises ValueError if no address can have the name.

    The store looks at the name again if the memory is new.
    """
    if not is_readable(name) or "/" in name or name in (".", ".."):
        check_name("memory", name)
    return Key(owner, name)


class Event(NamedTuple):
    """kind: window, sleep, change or deleted. data: docs/server.md describes it."""

    kind: str
    data: dict[str, Any]


class Feed:
    """Hands events to all watchers of a memory. To be called in the event loop."""

    def __init__(self) -> None:
        self._watchers: dict[Key, set[asyncio.Queue[Event | None]]] = collections.defaultdict(set)
        self._is_closed = False

    def publish(self, key: Key, kind: str, data: dict[str, Any]) -> None:
        """Hands an event to all watchers of a memory."""
        for queue in self._watchers.get(key, ()):
            _put(queue, Event(kind, data))

    @contextlib.contextmanager
    def watch(self, key: Key) -> Iterator[asyncio.Queue[Event | None]]:
        """A queue of the events from now on; None is the last."""
        queue = asyncio.Queue[Event | None](MOST_WAITING)
        if self._is_closed:
            queue.put_nowait(None)
        self._watchers[key].add(queue)
        try:
            yield queue
        finally:
            self._watchers[key].discard(queue)
            if not self._watchers[key]:
                del self._watchers[key]

    def close(self) -> None:
        """Ends the queues of all watchers, also of those to come."""
        self._is_closed = True
        for watchers in self._watchers.values():
            for queue in watchers:
                _put(queue, None)


def _put(queue: asyncio.Queue[Event | None], event: Event | None) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(event)
