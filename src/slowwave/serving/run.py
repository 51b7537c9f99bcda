"""Runs a server until it is told to stop."""

from __future__ import annotations

import ipaddress
import logging
import sys
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from slowwave.generation.model_folder import load
from slowwave.serving.api_keys import read_api_keys
from slowwave.serving.app import create_app
from slowwave.serving.config import ServeConfig
from slowwave.serving.memory_count import describe_memories

LOOPBACK = ("localhost", "127.0.0.1", "::1")


class AppServer(uvicorn.Server):
    """Ends open replies when the signal comes; uvicorn alone would wait for their ends."""

    def __init__(self, app: FastAPI, *, host: str, port: int, shutdown_seconds: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=max(1, round(shutdown_seconds)),
            )
        )
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by a signal."""
        if server := getattr(self._app.state, "server", None):
            server.stop_soon()
        super().handle_exit(sig, frame)


def serve(
    model: str | Path,
    *,
    memory_dir: str | Path,
    host: str,
    port: int,
    api_keys: str | Path | None,
    model_name: str | None,
    config: ServeConfig,
) -> None:
    """Serves the model in a folder, and returns when a signal has ended that.

    Raises ValueError if the folder or the keys are unfit, or others could reach a server that has
    no keys; OSError if the address or the directory cannot be used.
    """
    if api_keys is None and not _is_loopback(host):
        raise ValueError(
            f"--host is {host}, which others can reach, and there are no API keys; give --api-keys "
            "FILE, or use 127.0.0.1"
        )
    keys = None if api_keys is None else read_api_keys(api_keys)
    _log_to_stderr()
    _say(f"loading {model}")
    talker = load(model)
    _say(f"opening memories in {memory_dir}")
    _say(describe_memories(Path(memory_dir), has_owners=keys is not None))
    app = create_app(
        talker,
        model_name=model_name or Path(model).resolve().name,
        memory_dir=memory_dir,
        config=config,
        keys=keys,
        hosts=[host, *LOOPBACK] if keys is None else None,
    )
    _say(f"serving {model} at http://{_write_host(host)}:{port}")
    server = AppServer(app, host=host, port=port, shutdown_seconds=config.shutdown_seconds)
    server.run()


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
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _write_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
