"""A tiny model that reads bytes, served in this process."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest
from fastapi import FastAPI

from slowwave.memory.talker import Talker
from slowwave.models.backbone import HybridLM
from slowwave.runtime.config import ChatFormat
from slowwave.serving.app import create_app
from slowwave.serving.config import ServeConfig
from slowwave.serving.connections import bind
from slowwave.serving.run import AppServer
from slowwave.sleep.config import SleepConfig
from slowwave.storage.tokenizer import ByteTokenizer
from tiny_models import TWO_LAYERS

Result = TypeVar("Result")

MODEL = HybridLM(TWO_LAYERS, seed=1)
Make = Callable[..., FastAPI]


@pytest.fixture
def talker() -> Talker:
    return Talker(MODEL, ByteTokenizer(), SleepConfig(window=12, passes=3), ChatFormat())


@pytest.fixture
def make(talker: Talker, tmp_path: Path) -> Make:
    """Servers of one model over one directory."""

    def make_app(**options: Any) -> FastAPI:
        settings: dict[str, Any] = {"model_name": "tiny", "memory_dir": tmp_path / "memories"}
        return create_app(talker, **{**settings, **options})

    return make_app


@contextlib.asynccontextmanager
async def serve(app: FastAPI, key: str | None = None) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a server that lives as long."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    transport = httpx2.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client,
    ):
        yield client


def run(scenario: Coroutine[Any, Any, Result]) -> Result:
    """What a scenario returns."""
    return asyncio.run(scenario)


def chat(*texts: str, **fields: Any) -> dict[str, Any]:
    """A request; texts are by the user and the assistant in turns."""
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    return {"model": "tiny", "messages": messages, "max_tokens": 9, **fields}


@contextlib.contextmanager
def listen(app: FastAPI, config: ServeConfig | None = None) -> Iterator[str]:
    """The address of a server that listens to a port, in a thread; config: of its connections."""
    config = dataclasses.replace(config or ServeConfig(), shutdown_seconds=5)
    server, sockets = AppServer(app, config), bind("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=(sockets,))
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
        yield f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    finally:
        app.state.server.stop_soon()
        server.should_exit = True
        thread.join()
