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
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from types import FrameType
from typing import cast

import uvicorn
from fastapi import FastAPI

from slowwave.memory.notes_config import EndpointConfig, NotesFile
from slowwave.memory.store import Store
from slowwave.memory.talker import load
from slowwave.serving.access import ApiKeys, read_api_keys
from slowwave.serving.app import create_app
from slowwave.serving.config import ServeConfig
from slowwave.serving.connections import Connection, SpareDescriptor, bind, fit_connections
from slowwave.serving.upstream.app import create_proxy

LOOPBACK = ("localhost", "127.0.0.1", "::1")
CATALOGUE = "catalogue.sqlite"


class AppServer(uvicorn.Server):
    """Ends open replies when a signal comes; uvicorn alone would wait until they are whole.

    `run` it with the sockets that `bind` returns. config: limits of its connections. on_ready:
    called once requests are answered.
    """

    def __init__(
        self, app: FastAPI, config: ServeConfig, on_ready: Callable[[], object] = lambda: None
    ) -> None:
        connection = functools.partial(Connection, limits=config, most=fit_connections(config))
        super().__init__(
            uvicorn.Config(
                app,
                http=cast(type[Connection], connection),
                ws="none",
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=max(1, round(config.shutdown_seconds)),
            )
        )
        self._app, self._on_ready = app, on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn, with the sockets that `run` was given."""
        self._spare = SpareDescriptor(sockets or [])
        asyncio.get_running_loop().set_exception_handler(self._spare.handle)
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn."""
        await super().shutdown(sockets)
        self._spare.close()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by a signal."""
        if server := getattr(self._app.state, "server", None):
            server.stop_soon()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Called by uvicorn, which leaves out the signal of a terminal that is closed."""
        with super().capture_signals():
            is_main = threading.current_thread() is threading.main_thread()
            if not (is_main and hasattr(signal, "SIGHUP")):
                yield
                return
            before = signal.getsignal(signal.SIGHUP)
            if before != signal.SIG_IGN:  # nohup ignores it
                signal.signal(signal.SIGHUP, self.handle_exit)
            try:
                yield
            finally:
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
    """Serves the model in a folder until a signal comes.

    lenient: see `create_app`.

    Raises ValueError if the folder, the keys or the address are wrong, or if other machines could
    reach a server without keys; OSError if the directory cannot be used.
    """

    def make(keys: ApiKeys | None, hosts: Sequence[str] | None) -> FastAPI:
        _say(f"loading {model}")
        return create_app(
            load(model),
            model_name=model_name or Path(model).resolve().name,
            memory_dir=memory_dir,
            config=config,
            keys=keys,
            hosts=hosts,
            lenient=lenient,
        )

    _run(make, str(model), memory_dir, host=host, port=port, api_keys=api_keys, config=config)


def serve_upstream(
    endpoint: EndpointConfig,
    *,
    notes: NotesFile | None,
    memory_dir: str | Path,
    host: str,
    port: int,
    api_keys: str | Path | None,
    config: ServeConfig,
) -> None:
    """Serves a memory for models that run at an endpoint elsewhere; as `serve`.

    notes: who writes notes, and how; the endpoint itself if not given.
    """

    def make(keys: ApiKeys | None, hosts: Sequence[str] | None) -> FastAPI:
        return create_proxy(
            endpoint, notes=notes, memory_dir=memory_dir, config=config, keys=keys, hosts=hosts
        )

    _run(make, endpoint.url, memory_dir, host=host, port=port, api_keys=api_keys, config=config)


def _run(
    make: Callable[[ApiKeys | None, Sequence[str] | None], FastAPI],
    title: str,
    memory_dir: str | Path,
    *,
    host: str,
    port: int,
    api_keys: str | Path | None,
    config: ServeConfig,
) -> None:
    """Runs what `make` returns for these keys and names of the server. title: what is served."""
    if api_keys is None and not _is_loopback(host):
        raise ValueError(
            f"--host is {host}, which others can reach, and there are no API keys; give --api-keys "
            "FILE, or use 127.0.0.1"
        )
    keys = None if api_keys is None else read_api_keys(api_keys)
    _log_to_stderr()
    sockets = bind(host, port)  # before a model is loaded, which takes a while
    with contextlib.ExitStack() as stack:
        for each in sockets:
            stack.callback(each.close)
        app = make(keys, [host, *LOOPBACK] if keys is None else None)
        _say(f"opening memories in {memory_dir}")
        if keys is None:
            Store(memory_dir).close()  # raises a ValueError, which becomes one sentence
        _say(describe_memories(Path(memory_dir), has_owners=keys is not None))
        port = sockets[0].getsockname()[1]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        AppServer(app, config, lambda: _say(f"serving {title} at {address}")).run(sockets)


def describe_memories(directory: Path, *, has_owners: bool) -> str:
    """How many memories lie in a directory, or in the folders of its owners.

    Names the folders that cannot be opened; the owner of such a one hears why with each request.
    """
    folders = sorted(directory.glob("*/")) if has_owners else [directory]
    counts, damaged = list[int](), list[str]()
    for folder in folders:
        if (folder / CATALOGUE).exists():
            try:
                with Store(folder) as store:
                    counts.append(len(store.sessions()))
            except (ValueError, OSError):
                damaged.append(folder.name)
    owners = f" of {_count(len(counts), 'owner', 'owners')}" if has_owners else ""
    told = f"{_count(sum(counts), 'memory', 'memories')}{owners} in {directory}"
    return told + (f"; cannot be opened: {', '.join(damaged)}" if damaged else "")


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _say(line: str) -> None:
    print(f"slowwave: {line}", file=sys.stderr, flush=True)


def _log_to_stderr() -> None:
    log = logging.getLogger("slowwave.serving")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):  # a name, of which one alone is known
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    return False
