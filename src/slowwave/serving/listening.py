"""The sockets of a server, and the file descriptors that its connections take."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import time
from asyncio import AbstractEventLoop
from collections.abc import Sequence
from typing import Any

from slowwave.serving.config import ServeConfig

LOG = logging.getLogger("slowwave.serving")

BACKLOG = 1024
ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
OTHER_DESCRIPTORS = 192
"""For catalogues, state files, the log, and connections that are turned away."""
NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
LOG_SECONDS = 60.0
TURNED_AWAY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"


def bind(host: str, port: int) -> list[socket.socket]:
    """Listens at all addresses of a host; raises ValueError if another program does, or none is."""
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
    serious = [each for each in failures if each.errno not in ABSENT]
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

    Raises this process's own limit of them as far as it is needed and may be.
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
    """Answers connections that come when no file descriptor is left, with one kept for that.

    asyncio alone writes a traceback to the log for each of them, again and again.
    """

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self._sockets = sockets
        self._spare: int | None = os.open(os.devnull, os.O_RDONLY)
        self._logged = -LOG_SECONDS

    def handle(self, loop: AbstractEventLoop, context: dict[str, Any]) -> None:
        """The exception handler of an event loop."""
        error, message = context.get("exception"), str(context.get("message"))
        if "_start_serving" in message and all(each.fileno() < 0 for each in self._sockets):
            return  # asyncio wanted to try again, and the server has ended meanwhile
        is_accept = message.startswith("socket.accept()")
        if not (is_accept and isinstance(error, OSError) and error.errno in NO_DESCRIPTORS):
            loop.default_exception_handler(context)
            return
        if time.monotonic() - self._logged >= LOG_SECONDS:
            self._logged = time.monotonic()
            LOG.error("no file descriptor is left; connections are told to come back (503)")
        for listening in self._sockets:
            with contextlib.suppress(OSError):  # there is none, or it has gone
                self._turn_away(listening)

    def close(self) -> None:
        """Gives the descriptor back."""
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def _turn_away(self, listening: socket.socket) -> None:
        self.close()
        try:
            for _ in range(BACKLOG):
                connection, _ = listening.accept()
                with connection:
                    connection.setblocking(False)
                    connection.send(TURNED_AWAY)
        finally:
            with contextlib.suppress(OSError):  # somebody else was quicker
                self._spare = os.open(os.devnull, os.O_RDONLY)
