"""The server as an ASGI application."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from slowwave.memory.talker import Talker
from slowwave.serving import completions, limits, memories
from slowwave.serving.access import Asked
from slowwave.serving.api_keys import ApiKeys
from slowwave.serving.config import ServeConfig
from slowwave.serving.cross_origin import CrossOrigin
from slowwave.serving.errors import answer
from slowwave.serving.front_door import FrontDoor
from slowwave.serving.metrics import Metrics
from slowwave.serving.server import Server
from slowwave.serving.static_page import StaticPage


def create_app(
    talker: Talker,
    *,
    model_name: str,
    memory_dir: str | Path,
    config: ServeConfig | None = None,
    keys: ApiKeys | None = None,
    hosts: Sequence[str] | None = None,
    lenient: bool = False,
) -> FastAPI:
    """Serves a model and its memories, which lie in a directory that is made if it is not there.

    keys: who may ask; without them everybody may, and all share the memories. hosts: names by which
    the server may be addressed; any if not given. lenient: fields of a request for a reply that
    cannot be served are left out, with a header that says so, not refused.

    The application works within its lifespan, at whose end every turn is on disk and every memory
    closed. Raises ValueError if pages from elsewhere may ask, but there are no keys.
    """
    config, keys, metrics = config or ServeConfig(), keys or ApiKeys([]), Metrics()
    if config.origins and not keys:
        raise ValueError(
            "serve.origins names pages that may ask with a key, and there are no keys; give "
            "--api-keys FILE, or leave it out"
        )

    @contextlib.asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        app.state.server = server = Server(
            talker,
            model_name=model_name,
            memory_dir=Path(memory_dir),
            config=config,
            keys=keys,
            metrics=metrics,
            lenient=lenient,
        )
        try:
            if not keys:
                await server.sessions.store("")  # what is wrong with it is told at once
            yield
        finally:
            await server.close()

    # FastAPI's own pages of documentation run scripts from elsewhere.
    app = FastAPI(lifespan=live, openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(
        FrontDoor, keys=keys, hosts=hosts, max_body_bytes=config.max_body_bytes, metrics=metrics
    )
    if keys:
        app.add_middleware(CrossOrigin, origins=config.origins)
    for kind in (HTTPException, RequestValidationError, ValueError, OSError):
        app.add_exception_handler(kind, answer)
    app.include_router(completions.router)
    app.include_router(limits.router)
    app.include_router(memories.router)

    @app.get("/health")
    async def tell_health() -> dict[str, Any]:
        """Whether there is somebody."""
        is_stopping = app.state.server.is_stopping
        return {"status": "stopping" if is_stopping else "ok", "model": model_name}

    @app.get("/metrics")
    async def tell_metrics(access: Asked) -> Response:
        """Numbers for Prometheus."""
        return Response(access.server.metrics.text(), media_type="text/plain; version=0.0.4")

    app.mount("/", StaticPage())
    return app
