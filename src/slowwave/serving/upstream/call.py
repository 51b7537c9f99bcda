"""Requests to an endpoint elsewhere, made by threads, and what their answers say.

A thread that waits for an answer is of no use to anybody once its client has gone: it is told to
hang up as soon as there is an answer, and no end of the program waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple, TypeVar

from slowwave.memory.endpoint import MOST_BYTES, Endpoint, EndpointError, read_text
from slowwave.memory.ledger import Finish

Result = TypeVar("Result")

READ_AT_ONCE = 2**16
"""Bytes."""


class Head(NamedTuple):
    """The begin of an answer."""

    status: int
    kind: str
    """Its content type."""
    retry_after: str | None = None

    @property
    def is_stream(self) -> bool:
        """Whether server-sent events follow."""
        return self.kind.partition(";")[0].strip().lower() == "text/event-stream"


class Call:
    """A request that is under way. To be made and used in an event loop.

    path: below the endpoint's url. content: the body of a POST; None is a GET. on_end: is called
    in the loop when its thread has ended, which may be long after `stop`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        path: str,
        content: bytes | None,
        on_end: Callable[[], object] = lambda: None,
    ) -> None:
        self._endpoint, self._path, self._content = endpoint, path, content
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._head: asyncio.Future[Head] = self._loop.create_future()
        self._parts = asyncio.Queue[bytes | EndpointError | None]()
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self._is_stopped = False
        threading.Thread(target=self._run, name="upstream", daemon=True).start()

    async def head(self) -> Head:
        """Waits for the begin of the answer; raises EndpointError if there is none."""
        return await self._head

    async def parts(self) -> AsyncIterator[bytes]:
        """The body as it comes; raises EndpointError if it breaks off."""
        while (part := await self._parts.get()) is not None:
            if isinstance(part, EndpointError):
                raise part
            yield part

    def stop(self) -> None:
        """Hangs up, at once if the answer has begun."""
        with self._lock:
            self._is_stopped = True
            if self._connection is not None:
                with contextlib.suppress(OSError):
                    self._connection.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        try:
            with self._endpoint.open(self._path, self._content) as answer:
                self._receive(answer)
        except EndpointError as error:
            self._tell(self._fail, error)
        except Exception:  # a fault of ours, which must not leave a client waiting
            self._tell(self._fail, self._endpoint.nonsense("something that cannot be read"))
            raise
        else:
            self._tell(self._parts.put_nowait, None)
        finally:
            with self._lock:
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
            self._tell(lambda _: self._on_end(), None)

    def _receive(self, answer: http.client.HTTPResponse) -> None:
        self._keep_connection(answer)
        headers, size = answer.headers, 0
        kind, wait = headers.get("Content-Type", ""), headers.get("Retry-After")
        self._tell(self._begin, Head(answer.status, kind, wait))
        while not self._is_stopped and (part := answer.read1(READ_AT_ONCE)):
            size += len(part)
            if size > MOST_BYTES:
                raise self._endpoint.nonsense(f"more than {MOST_BYTES >> 20} MiB")
            self._tell(self._parts.put_nowait, part)
        if answer.length:  # bytes that were announced and did not come
            raise http.client.IncompleteRead(b"")

    def _keep_connection(self, answer: http.client.HTTPResponse) -> None:
        """A second descriptor of it, which `stop` may use at any time."""
        with self._lock, contextlib.suppress(OSError, ValueError, AttributeError):
            # A body without bytes has let go of it already.
            self._connection = socket.socket(fileno=os.dup(answer.fileno()))

    def _begin(self, head: Head) -> None:
        if not self._head.done():
            self._head.set_result(head)

    def _fail(self, error: EndpointError) -> None:
        if not self._head.done():
            self._head.set_exception(error)
            self._head.exception()  # nobody need have asked for it
        self._parts.put_nowait(error)

    def _tell(self, listener: Callable[[Any], object], news: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(listener, news)


def run_apart(function: Callable[[], Result]) -> asyncio.Future[Result]:
    """Calls what may wait for an endpoint, in a thread that no end of the program waits for."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Result] = loop.create_future()

    def settle(settle_: Callable[[Any], object], value: object) -> None:
        if not result.done():
            settle_(value)

    def run() -> None:
        try:
            news = (result.set_result, function())
        except Exception as error:
            news = (result.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, *news)

    threading.Thread(target=run, name="notes", daemon=True).start()
    return result


class Reply(NamedTuple):
    """What a model said."""

    text: str
    finish: Finish


class StreamReader:
    """Reads along while the events of a stream pass."""

    def __init__(self) -> None:
        self._rest = b""
        self._texts = list[str]()
        self._finish: Finish | None = None
        self._has_failed = False
        self.is_done = False
        """Whether the event that ends a stream has passed."""

    def feed(self, part: bytes) -> None:
        """Reads the next bytes."""
        *lines, self._rest = (self._rest + part).split(b"\n")
        for line in lines:
            self._read(line)

    def reply(self) -> Reply | None:
        """What was said; None if the stream broke off, or told of an error."""
        if self._has_failed or not (self.is_done or self._finish):
            return None
        return Reply("".join(self._texts), self._finish or "stop")

    def _read(self, line: bytes) -> None:
        if not line.startswith(b"data:"):
            return
        data = line[len(b"data:") :].strip()
        if data == b"[DONE]":
            self.is_done = True
            return
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError):
            return
        self._has_failed = self._has_failed or (isinstance(chunk, dict) and "error" in chunk)
        said = _read_choice(chunk, "delta")
        if said is not None:
            self._texts.append(said[0])
            self._finish = said[1] or self._finish


def read_whole(content: bytes) -> Reply:
    """What an answer in one piece says; raises ValueError if it is no chat completion."""
    try:
        said = _read_choice(json.loads(content), "message")
    except RecursionError:
        said = None
    if said is None:
        raise ValueError("no chat completion")
    return Reply(said[0], said[1] or "stop")


def _read_choice(value: Any, field: str) -> tuple[str, Finish | None] | None:
    """Text and end in the first choice of a completion or a chunk; None if it has none."""
    try:
        choice = value["choices"][0]
        message, finish = choice[field], choice.get("finish_reason")
        text = read_text(message.get("content")) or read_text(message.get("refusal"))
    except (LookupError, TypeError, AttributeError):
        return None
    if not isinstance(finish, str):
        return text, None
    return text, "length" if finish == "length" else "stop"
