"""The sockets of a server, and the connections of clients with limits that uvicorn lacks.

A client that is silent, slow or sends crumbs is hung up on, so that it takes up no connection for
long.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import socket
import time
from collections.abc import Sequence
from typing import Any, Literal, cast

import h11
from h11._connection import DEFAULT_MAX_INCOMPLETE_EVENT_SIZE
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from slowwave.serving.config import ServeConfig
from slowwave.serving.errors import ApiError

LOG = logging.getLogger("slowwave.serving")

BACKLOG = 1024
NO_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
OTHER_DESCRIPTORS = 192
"""File descriptors for catalogues, state files, the log, and connections that are refused."""
NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
LOG_SECONDS = 60.0
"""Between two lines of the log that say so."""
REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
READ_AT_ONCE = 4096
"""Bytes that are parsed before others get their turn: h11 needs 10 us for a chunk of one byte."""
MOST_CHUNKS = 2**14
"""Chunks that a body may come in."""
LINGER_SECONDS = 5.0
"""For a client to send the rest of a body that was answered before its end."""
REFUSAL_SECONDS = 1.0
"""For a client to read that there are too many connections."""
MOST_REFUSED = 64
"""Connections that are refused with an answer at the same time; more are closed without one."""

Due = Literal["head", "body", "rest"]


def bind(host: str, port: int) -> list[socket.socket]:
    """Listens at all addresses of a host; raises ValueError if it has none, or they are taken."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ValueError(f"--host is {host}: {error.strerror}; use 127.0.0.1") from None
    sockets, failures = list[socket.socket](), list[OSError]()
    for family, _, protocol, _, address in dict.fromkeys(found):
        try:
            sockets.append(_listen(family, protocol, address))
        except OSError as error:
            failures.append(error)
    # A name may have addresses that this machine lacks: localhost is ::1 too.
    serious = [each for each in failures if each.errno not in NO_ADDRESS]
    if serious or not sockets:
        for each in sockets:
            each.close()
        raise ValueError(_explain(host, port, (serious or failures)[0]))
    return sockets


def _listen(family: int, protocol: int, address: tuple[Any, ...]) -> socket.socket:
    # Not socket.create_server: it names no protocol, and asyncio then lets answers wait (Nagle).
    listening = socket.socket(family, socket.SOCK_STREAM, protocol)
    try:
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _explain(host: str, port: int, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"--port is {port}, where another program listens already; use another"
        case errno.EACCES:
            return f"--port is {port}, which this user may not listen at; use 1024 or more"
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            return f"--host is {host}, which is no address of this machine; use 127.0.0.1"
        case _:
            return f"--host {host} --port {port}: {error.strerror}; use another"


def fit_connections(config: ServeConfig) -> int:
    """How many connections there may be, so that file descriptors are left for everything else.

    Raises this process's own limit of file descriptors as far as needed and allowed.
    """
    try:
        import resource
    except ModuleNotFoundError:  # a system without such limits
        return config.max_connections
    others = config.max_open_sessions + OTHER_DESCRIPTORS
    wanted = config.max_connections + others
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return config.max_connections
    return max(1, soft - others, soft // 4)


class SpareDescriptor:
    """Refuses connections that come when no file descriptor is left, with one kept for that.

    asyncio alone writes a traceback to the log for each of them, again and again.
    """

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self._sockets = sockets
        self._spare: int | None = os.open(os.devnull, os.O_RDONLY)
        self._logged = -LOG_SECONDS

    def handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The exception handler of an event loop."""
        error, message = context.get("exception"), str(context.get("message"))
        if "_start_serving" in message and all(each.fileno() < 0 for each in self._sockets):
            return  # asyncio tries again, and the server has ended meanwhile
        is_accept = message.startswith("socket.accept()")
        if not (is_accept and isinstance(error, OSError) and error.errno in NO_DESCRIPTORS):
            loop.default_exception_handler(context)
            return
        if time.monotonic() - self._logged >= LOG_SECONDS:
            self._logged = time.monotonic()
            LOG.error("no file descriptor is left; connections are told to come back (503)")
        for listening in self._sockets:
            with contextlib.suppress(OSError):  # no connection waits, or its client has gone
                self._refuse(listening)

    def close(self) -> None:
        """Gives the descriptor back."""
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def _refuse(self, listening: socket.socket) -> None:
        self.close()
        try:
            for _ in range(BACKLOG):
                connection, _ = listening.accept()
                with connection:
                    connection.setblocking(False)
                    connection.send(REFUSAL)
        finally:
            with contextlib.suppress(OSError):  # another thread took the descriptor
                self._spare = os.open(os.devnull, os.O_RDONLY)


class Connection(H11Protocol):
    """limits: the seconds that a client may take. most: connections at one time."""

    def __init__(self, *arguments: Any, limits: ServeConfig, most: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn = self._chunks = _CountingConnection()
        self._limits, self._most = limits, most
        self._due: Due | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._send_alarm: asyncio.TimerHandle | None = None
        self._is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        limit_silence(transport, self._limits.send_seconds)
        if len(self.connections) > self._most:
            self._refuse()
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        for alarm in (self._alarm, self._send_alarm):
            if alarm is not None:
                alarm.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._is_refused:
            return
        super().data_received(data)
        if self._chunks.count > MOST_CHUNKS:
            self.transport.abort()
        self._watch()

    def on_response_complete(self) -> None:
        """Called by uvicorn once an answer has gone out."""
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        super().pause_writing()
        self._send_alarm = self.loop.call_later(self._limits.send_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        super().resume_writing()
        if self._send_alarm is not None:
            self._send_alarm.cancel()

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn if the request is no HTTP."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._answer(ApiError(400, "the request is no valid HTTP; mend it"))
            self.transport.close()
        else:
            self.transport.abort()  # it comes after an answer

    def _should_upgrade(self) -> bool:
        return False  # to WebSockets, which this server does not have

    def _watch(self) -> None:
        """Sets the alarm for the client's next step, unless it is set for that already."""
        due = self._find_due()
        if due == self._due:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._due, self._alarm = due, None
        if due is not None:
            limits = self._limits
            seconds = {
                "head": limits.header_seconds,
                # Later than the reader of the body, which answers 408 after body_seconds.
                "body": limits.body_seconds + LINGER_SECONDS,
                "rest": LINGER_SECONDS,
            }
            self._alarm = self.loop.call_later(seconds[due], self._hang_up)

    def _find_due(self) -> Due | None:
        theirs, ours = self.conn.their_state, self.conn.our_state
        if theirs is h11.IDLE:
            return "head"
        if theirs is h11.SEND_BODY:
            return "rest" if ours in (h11.DONE, h11.MUST_CLOSE) else "body"
        return None

    def _hang_up(self) -> None:
        has_begun = self._due == "head" and self.conn.trailing_data[0]
        if not has_begun:
            self.transport.abort()
            return
        seconds = self._limits.header_seconds
        message = f"the request's head took more than {seconds:g} seconds; send it at once"
        self._answer(ApiError(408, message))
        self.transport.close()

    def _refuse(self) -> None:
        if len(self.connections) > self._most + MOST_REFUSED:
            self.transport.abort()
            return
        message = f"{self._most} connections are open already; come back later"
        self._answer(ApiError(503, message, retry_after=1, code="busy"))
        self.transport.write_eof()
        self._alarm = self.loop.call_later(REFUSAL_SECONDS, self.transport.abort)

    def _answer(self, error: ApiError) -> None:
        """Answers without a whole request; the rest of it is not read."""
        self._is_refused = True
        body = json.dumps(error.body()).encode()
        headers = [("Content-Type", "application/json"), ("Connection", "close")]
        headers.append(("Content-Length", str(len(body))))
        headers += (error.headers or {}).items()
        reason = STATUS_PHRASES[error.status_code]
        head = h11.Response(status_code=error.status_code, headers=headers, reason=reason)
        for event in (head, h11.Data(body), h11.EndOfMessage()):
            self.transport.write(cast(bytes, self.conn.send(event)))


class _CountingConnection(h11.Connection):
    """count: the chunks of the request's body that have come so far."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, DEFAULT_MAX_INCOMPLETE_EVENT_SIZE)
        self.count = 0

    def next_event(self) -> Any:
        """See h11.Connection."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.count = 0
        elif isinstance(event, h11.Data):
            self.count += 1
        return event


def limit_silence(transport: asyncio.Transport, seconds: float) -> None:
    """Reads little at once, and notices a client that is gone without closing its connection."""
    if hasattr(transport, "max_size"):  # of asyncio's own
        transport.max_size = READ_AT_ONCE  # pyright: ignore[reportAttributeAccessIssue]
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection = transport.get_extra_info("socket")
        milliseconds = round(1000 * seconds)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
