"""A connection of uvicorn's, with the limits that uvicorn lacks.

A client that is silent, slow or sends crumbs is hung up on, so that it holds no place for long.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any, Literal, cast

import h11
from h11._connection import DEFAULT_MAX_INCOMPLETE_EVENT_SIZE
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from slowwave.serving.config import ServeConfig
from slowwave.serving.errors import ApiError

READ_AT_ONCE = 4096
"""Bytes that are parsed before others get their turn: h11 needs 10 us for a chunk of one byte."""
MOST_PIECES = 2**14
"""Chunks that a body may come in."""
LINGER_SECONDS = 5.0
"""For a client to send the rest of a body that was answered before its end."""
REFUSAL_SECONDS = 1.0
"""For a client to read that there are too many connections."""
MOST_REFUSED = 64
"""Connections that are told so at the same time; more are closed without a word."""

Due = Literal["head", "body", "rest"]


class Connection(H11Protocol):
    """limits: how long a client may take for what it has to do. most: connections at one time."""

    def __init__(self, *arguments: Any, limits: ServeConfig, most: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn = self._pieces = _CountingConnection()
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
            self._turn_away()
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
        if self._pieces.count > MOST_PIECES:
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
        """Called by uvicorn where what came is no HTTP."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._tell(ApiError(400, "the request is no valid HTTP; mend it"))
            self.transport.close()
        else:
            self.transport.abort()  # it comes after an answer

    def _should_upgrade(self) -> bool:
        return False  # to WebSockets, which are not spoken here

    def _watch(self) -> None:
        """Sets the alarm for what the client has to do next, unless it is set for that already."""
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
                "body": limits.body_seconds + LINGER_SECONDS,  # the reader of the body says so
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
        self._tell(
            ApiError(408, f"the request's head took more than {seconds:g} seconds; send it at once")
        )
        self.transport.close()

    def _turn_away(self) -> None:
        if len(self.connections) > self._most + MOST_REFUSED:
            self.transport.abort()
            return
        self._tell(too_many_connections(self._most))
        self.transport.write_eof()
        self._alarm = self.loop.call_later(REFUSAL_SECONDS, self.transport.abort)

    def _tell(self, error: ApiError) -> None:
        """An answer without a request; what comes of that now is not read."""
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
    """count: the pieces that the body of the request has come in so far."""

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


def too_many_connections(most: int) -> ApiError:
    """To clients that come while there are as many connections as may be."""
    return ApiError(
        503, f"{most} connections are open already; come back later", retry_after=1, code="busy"
    )


def limit_silence(transport: asyncio.Transport, seconds: float) -> None:
    """Reads little at once, and notices where the other end is gone without a word."""
    if hasattr(transport, "max_size"):  # of asyncio's own
        transport.max_size = READ_AT_ONCE  # pyright: ignore[reportAttributeAccessIssue]
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection = transport.get_extra_info("socket")
        milliseconds = round(1000 * seconds)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
