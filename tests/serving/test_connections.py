"""Clients that are silent, slow, or too many, and a server without file descriptors."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import resource
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Request, Response

from serving_app import Make, listen
from slowwave.serving.config import ServeConfig
from slowwave.serving.connections import (
    MOST_CHUNKS,
    OTHER_DESCRIPTORS,
    READ_AT_ONCE,
    SpareDescriptor,
    bind,
    fit_connections,
    limit_silence,
)

QUICK = ServeConfig(header_seconds=0.4, body_seconds=0.4, send_seconds=0.4)
PATIENCE = 20.0
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@pytest.fixture
def address(make: Make) -> Iterator[str]:
    with listen(make(config=QUICK), QUICK) as address:
        yield address


@contextlib.contextmanager
def connect(address: str) -> Iterator[socket.socket]:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), PATIENCE) as connection:
        yield connection


def read_to_the_end(connection: socket.socket) -> bytes:
    """All that comes until the other end hangs up."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(2**16):
            received += piece
    return received


def read_answer(connection: socket.socket) -> bytes:
    """An answer of JSON without nested objects, after which the connection stays open."""
    received = b""
    while not received.endswith(b"}"):
        received += connection.recv(2**16)
    return received


def read_error(received: bytes) -> tuple[bytes, str]:
    """The line with the status, and the sentence."""
    head, _, body = received.partition(b"\r\n\r\n")
    return head.split(b"\r\n")[0], json.loads(body)["error"]["message"]


def is_served(address: str) -> bool:
    return httpx2.get(f"{address}/health").json()["status"] == "ok"


def test_who_says_nothing_is_hung_up_on(address: str) -> None:
    with connect(address) as connection:
        began = time.monotonic()
        assert read_to_the_end(connection) == b""
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("earlier", [0, 1])
def test_half_a_head_is_answered(address: str, earlier: int) -> None:
    """However slowly it comes, and after a whole request too."""
    whole = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with connect(address) as connection:
        for _ in range(earlier):
            connection.sendall(whole)
            assert read_answer(connection).startswith(b"HTTP/1.1 200 OK")
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for place in range(20):
                connection.sendall(whole[place : place + 1])
                time.sleep(0.1)
                if time.monotonic() - began > 0.6:
                    break
        status, sentence = read_error(read_to_the_end(connection))
        assert time.monotonic() - began < 5
    assert status == b"HTTP/1.1 408 Request Timeout"
    assert sentence == "the request's head took more than 0.4 seconds; send it at once"


def test_a_body_that_does_not_end_is_answered(address: str) -> None:
    with connect(address) as connection:
        connection.sendall(HEAD + b'Content-Length: 100\r\n\r\n{"model":')
        status, sentence = read_error(read_to_the_end(connection))
    assert status == b"HTTP/1.1 408 Request Timeout"
    assert sentence == "the body took more than 0.4 seconds; send it again, or send less"


def test_a_body_that_is_answered_before_its_end_need_not_come(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slowwave.serving.connections.LINGER_SECONDS", 0.3)
    with connect(address) as connection:
        connection.sendall(HEAD.replace(b"/completions", b"/nothing"))
        connection.sendall(b"Content-Length: 1000\r\n\r\n{")
        assert b"404 Not Found" in connection.recv(2**16)
        began = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() - began < 5:
                connection.sendall(b" ")
                time.sleep(0.05)


def test_a_body_in_crumbs_is_not_read_to_its_end(make: Make) -> None:
    with listen(make()) as address:
        with connect(address) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            for _ in range(2 * MOST_CHUNKS // 1000):
                connection.sendall(1000 * b"1\r\n \r\n")
            connection.sendall(b"0\r\n\r\n")
            assert read_to_the_end(connection) == b""
        assert is_served(address)


def test_who_takes_no_answer_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the system itself does not notice it."""
    monkeypatch.setattr("slowwave.serving.connections.limit_silence", lambda *_: None)
    app, gone = FastAPI(), list[bool]()

    @app.get("/much")
    async def much(request: Request) -> Response:
        return Response(b" " * 50_000_000)

    @app.middleware("http")
    async def watch(request: Request, call_next: Any) -> Response:
        try:
            return await call_next(request)
        finally:
            gone.append(True)

    app.state.server = Stoppable()
    with listen(app, QUICK) as address, connect(address) as connection:
        connection.sendall(b"GET /much HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        time.sleep(1.5)
        received = len(read_to_the_end(connection))
    assert gone and received < 50_000_000


class Stoppable:
    """What stands for a server of memories."""

    def stop_soon(self) -> None:
        pass


def test_connections_are_counted(make: Make) -> None:
    config = ServeConfig(max_connections=3)
    with listen(make(config=config), config) as address, contextlib.ExitStack() as stack:
        others = [stack.enter_context(connect(address)) for _ in range(3)]
        with connect(address) as connection:
            received = read_to_the_end(connection)
        status, sentence = read_error(received)
        assert status == b"HTTP/1.1 503 Service Unavailable"
        assert sentence == "3 connections are open already; come back later"
        assert b"\r\nretry-after: 1\r\n" in received.lower()
        others[0].close()
        wait_until_served(address)


def test_a_client_that_vanishes_is_noticed_and_one_that_sends_much_shares() -> None:
    with socket.socket() as connection:

        class Transport:
            max_size = 2**18

            def get_extra_info(self, _: str) -> socket.socket:
                return connection

        transport: Any = Transport()
        limit_silence(transport, 1.5)
        assert transport.max_size == READ_AT_ONCE
        option = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert option == 1500


def wait_until_served(address: str) -> None:
    end = time.monotonic() + PATIENCE
    while httpx2.get(f"{address}/health").status_code == 503:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_connections_leave_file_descriptors_for_everything_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits, config = [1024, 4096], ServeConfig(max_connections=2000, max_open_sessions=100)

    def set_limits(_: int, new: tuple[int, int]) -> None:
        limits[:] = new

    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", set_limits)
    assert fit_connections(config) == 2000
    assert limits == [2000 + 100 + OTHER_DESCRIPTORS, 4096]
    limits[:] = [256, 1024]
    assert fit_connections(config) == 1024 - 100 - OTHER_DESCRIPTORS
    limits[:] = [64, 64]
    assert fit_connections(config) == 16


def test_without_file_descriptors_connections_are_told_to_come_back(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """And the log tells it once."""
    caplog.set_level(logging.ERROR)
    with listen(make()) as address:
        assert is_served(address)
        waiting = [socket.socket() for _ in range(20)]
        taken = list[int]()
        host, port = address.removeprefix("http://").split(":")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 50, hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
            for connection in waiting:
                connection.settimeout(PATIENCE)
                connection.connect((host, int(port)))
            answers = [read_to_the_end(connection) for connection in waiting]
        finally:
            for descriptor in taken:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for connection in waiting:
                connection.close()
        wait_until_served(address)
    assert all(answer.startswith(b"HTTP/1.1 503 ") for answer in answers)
    assert [record.message for record in caplog.records] == [
        "no file descriptor is left; connections are told to come back (503)"
    ]


def test_other_errors_of_the_event_loop_are_told_as_ever() -> None:
    class Loop:
        told: Any = None

        def default_exception_handler(self, context: Any) -> None:
            self.told = context

    loop: Any = Loop()
    context = {"message": "a task failed", "exception": OSError(errno.EMFILE, "too many")}
    spare = SpareDescriptor([])
    spare.handle(loop, context)
    spare.close()
    assert loop.told == context


# Addresses.


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("no.such.host.invalid", "--host is no.such.host.invalid: "),
        ("192.0.2.1", "--host is 192.0.2.1, which is no address of this machine"),
    ],
)
def test_unfit_addresses(host: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        bind(host, 0)
    assert str(error.value).startswith(message)


def test_answers_do_not_wait_for_acknowledgements() -> None:
    """asyncio sets TCP_NODELAY where it knows the protocol; without it a request takes 40 ms."""
    (listening,) = bind("127.0.0.1", 0)
    with listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_a_busy_port_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=f"--port is {port}, where another program listens"):
            bind("127.0.0.1", port)
        with pytest.raises(ValueError, match=f"--port is {port}, where another program listens"):
            bind("localhost", port)  # of whose addresses one is free


@pytest.mark.parametrize("pause", [False, True])
def test_what_is_no_http_is_told_so_or_hung_up_on(
    address: str, caplog: pytest.LogCaptureFixture, pause: bool
) -> None:
    head = b"POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connect(address) as connection:
        connection.sendall(head if pause else b"ZZZ\r\n\r\n")
        answer = connection.recv(2**16) if pause else b""
        if pause:
            connection.sendall(b"ZZZ\r\n")
        answer += read_to_the_end(connection)
    assert answer.startswith(b"HTTP/1.1 404 " if pause else b"HTTP/1.1 400 ")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
