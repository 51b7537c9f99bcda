"""Runs a server until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from slowwave.memory.store import Store
from slowwave.memory.talker import load
from slowwave.serving.api_keys import read_api_keys
from slowwave.serving.app import create_app
from slowwave.serving.config import ServeConfig
from slowwave.serving.connection import Connection
from slowwave.serving.listening import SpareDescriptor, bind, fit_connections
from slowwave.serving.memory_count import describe_memories

LOOPBACK = ("localhost", "127.0.0.1", "::1")


class AppServer(uvicorn.Server):
    """Ends open replies when a signal comes; uvicorn alone would wait for their ends.

    limits: of its connections. on_ready: called once requests are answered.
    """

    def __init__(
        self,
        app: FastAPI,
        *,
        host: str,
        port: int,
        shutdown_seconds: float,
        limits: ServeConfig | None = None,
        on_ready: Callable[[], object] = lambda: None,
    ) -> None:
        limits = limits or ServeConfig()
        connection = functools.partial(Connection, limits=limits, most=fit_connections(limits))
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                http=cast(type[Connection], connection),
                ws="none",
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=max(1, round(shutdown_seconds)),
            )
        )
        self._app, self._on_ready = app, on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn, with the sockets that `run` was given, if any."""
        self._bound = [] if sockets else bind(self.config.host, self.config.port)
        sockets = sockets or self._bound
        self._spare = SpareDescriptor(sockets)
        asyncio.get_running_loop().set_exception_handler(self._spare.handle)
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn."""
        await super().shutdown([*(sockets or []), *self._bound])
        self._spare.close()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by a signal."""
        if server := getattr(self._app.state, "server", None):
            server.stop_soon()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """As uvicorn, which leaves out the signal of a terminal that is closed."""
        with super().capture_signals():
            before = _catch_hangup(self.handle_exit)
            try:
                yield
            finally:
                if before is not None:
                    signal.signal(signal.SIGHUP, before)


def serve(
    model: str | Path,
    *,
    memory_dir: str | Path,
    host: str,
    port: int,
    api_keys: str | Path | None,
    model_name: str | None,
    config: ServeConfig,
    lenient: bool = False,
) -> None:
    """Serves the model in a folder, and returns when a signal has ended that.

    lenient: see `create_app`.

    Raises ValueError if the folder, the keys or the address are unfit, or others could reach a
    server that has no keys; OSError if the directory cannot be used.
    """
    if api_keys is None and not _is_loopback(host):
        raise ValueError(
            f"--host is {host}, which others can reach, and there are no API keys; give --api-keys "
            "FILE, or use 127.0.0.1"
        )
    keys = None if api_keys is None else read_api_keys(api_keys)
    _log_to_stderr()
    sockets = bind(host, port)  # before the model is loaded, which takes a while
    with contextlib.ExitStack() as stack:
        for each in sockets:
            stack.callback(each.close)
        _say(f"loading {model}")
        app = create_app(
            load(model),
            model_name=model_name or Path(model).resolve().name,
            memory_dir=memory_dir,
            config=config,
            keys=keys,
            hosts=[host, *LOOPBACK] if keys is None else None,
            lenient=lenient,
        )
        _say(f"opening memories in {memory_dir}")
        if keys is None:
            Store(memory_dir).close()  # if it is unfit, that is told in a sentence
        _say(describe_memories(Path(memory_dir), has_owners=keys is not None))
        port = sockets[0].getsockname()[1]
        told = f"serving {model} at http://{_write_host(host)}:{port}"
        server = AppServer(
            app,
            host=host,
            port=port,
            shutdown_seconds=config.shutdown_seconds,
            limits=config,
            on_ready=lambda: _say(told),
        )
        server.run(sockets)


def _say(line: str) -> None:
    print(f"slowwave: {line}", file=sys.stderr, flush=True)


def _log_to_stderr() -> None:
    log = logging.getLogger("slowwave.serving")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def _catch_hangup(handler: Callable[[int, FrameType | None], object]) -> Any:
    """Lets a handler have SIGHUP, unless nohup keeps it off; what had it before, if that."""
    is_main = threading.current_thread() is threading.main_thread()
    if not (is_main and hasattr(signal, "SIGHUP")):
        return None
    before = signal.getsignal(signal.SIGHUP)
    if before == signal.SIG_IGN:
        return None
    return signal.signal(signal.SIGHUP, handler)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _write_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
