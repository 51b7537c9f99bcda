"""What happens to memories, for those who watch."""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from slowwave.memory.names import check_name, is_readable

LONGEST = 256
"""Events that wait for a slow watcher; older ones are left out."""


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
    """kind: window, sleep, turn or change. data: what docs/server.md says of it."""

    kind: str
    data: dict[str, Any]


class Feed:
    """Hands events to all who watch the same memory. To be called in the event loop."""

    def __init__(self) -> None:
        self._watchers: dict[Key, set[asyncio.Queue[Event | None]]] = collections.defaultdict(set)
        self._is_closed = False

    def publish(self, key: Key, kind: str, data: dict[str, Any]) -> None:
        """Tells those who watch a memory."""
        for queue in self._watchers.get(key, ()):
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(Event(kind, data))

    @contextlib.contextmanager
    def watch(self, key: Key) -> Iterator[asyncio.Queue[Event | None]]:
        """Events from now on; None is the end of all."""
        queue = asyncio.Queue[Event | None](LONGEST)
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
        """Ends all watching, and what would begin later."""
        self._is_closed = True
        for watchers in self._watchers.values():
            for queue in watchers:
                if queue.full():
                    queue.get_nowait()
                queue.put_nowait(None)
