"""The server as an ASGI application: its routes, its middleware, and the files of its page."""

from __future__ import annotations

import contextlib
import mimetypes
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from slowwave.memory.talker import Talker
from slowwave.serving import completions, memories
from slowwave.serving.access import AccessMiddleware, ApiKeys, CrossOriginMiddleware
from slowwave.serving.config import ServeConfig
from slowwave.serving.dependencies import CurrentAccess
from slowwave.serving.errors import answer
from slowwave.serving.monitoring import Metrics
from slowwave.serving.requests import HIGHEST_TEMPERATURE, LONGEST_NAME
from slowwave.serving.server import Server

mimetypes.add_type("text/javascript", ".js")  # some systems say otherwise, and browsers then refuse

PAGE = Path(__file__).parent / "page"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    # The browser itself refuses scripts that would turn text into markup.
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
PAGE_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # files of one version belong together
}

router = APIRouter(tags=["server"])
common = APIRouter(tags=["server"])
"""The endpoints of every server."""

ROUTERS = (completions.router, memories.router, router, common)
"""All endpoints. Those below /v1/ need a key, where there are keys."""


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
    """Serves a model and its memories, which lie in a directory that is made if it is missing.

    keys: of the clients; without keys every client is let in, and all share the memories. hosts:
    names by which the server may be addressed; any if not given. lenient: fields of a request for a
    reply that cannot be served are left out, with a header that names them, and not refused.

    The application works within its lifespan, at whose end every turn is on disk and every memory
    closed. Raises ValueError if config.origins names pages, but there are no keys.
    """
    config, keys, metrics = config or ServeConfig(), keys or ApiKeys({}), Metrics()

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
                await server.sessions.store("")  # a damaged store is reported at once
            yield
        finally:
            await server.close()

    app = assemble(live, ROUTERS, config=config, keys=keys, hosts=hosts, metrics=metrics)
    app.mount("/", StaticPage(directory=PAGE, html=True))
    return app


def assemble(
    live: Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]],
    routers: Iterable[APIRouter],
    *,
    config: ServeConfig,
    keys: ApiKeys,
    hosts: Sequence[str] | None,
    metrics: Metrics,
) -> FastAPI:
    """An application with its middleware and answers to errors; raises as `create_app`.

    live: its lifespan, in which app.state.server is there.
    """
    if config.origins and not keys:
        raise ValueError(
            "serve.origins names pages that may ask with a key, and there are no keys; give "
            "--api-keys FILE, or leave it out"
        )
    # FastAPI's own pages of documentation run scripts from elsewhere.
    app = FastAPI(lifespan=live, openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(AccessMiddleware, keys=keys, hosts=hosts, metrics=metrics)
    if keys:
        app.add_middleware(CrossOriginMiddleware, origins=config.origins)
    for kind in (HTTPException, RequestValidationError, ValueError, OSError):
        app.add_exception_handler(kind, answer)
    for each in routers:
        app.include_router(each)
    return app


@common.get("/health")
async def show_health(request: Request) -> dict[str, Any]:
    """Whether the server takes requests; for load balancers, and without a key."""
    server = request.app.state.server
    return {"status": "stopping" if server.is_stopping else "ok", "model": server.model_name}


@common.get("/metrics")
async def show_metrics(access: CurrentAccess) -> Response:
    """Numbers for Prometheus."""
    return Response(access.server.metrics.text(), media_type="text/plain; version=0.0.4")


@router.get("/v1/limits")
async def show_limits(access: CurrentAccess) -> dict[str, int]:
    """The limits of this server, and the values of fields that a request leaves out."""
    config = access.server.config
    return {
        "max_name_length": LONGEST_NAME,
        "max_body_bytes": config.max_body_bytes,
        "max_prompt_tokens": config.max_prompt_tokens,
        "max_tokens": config.max_tokens,
        "default_max_tokens": config.default_max_tokens,
        "max_temperature": HIGHEST_TEMPERATURE,
        "max_passes": access.server.talker.sleep.consolidator.most_passes,
        "default_passes": access.server.talker.sleep.passes,
    }


class StaticPage(StaticFiles):
    """The files of the page, with headers by which it loads from and reaches this server alone."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """See StaticFiles; other methods than GET and HEAD get 404, as for any unknown path."""
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(404)
        return await super().get_response(path, scope)

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """See StaticFiles; an answer 304 has the headers too."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(PAGE_HEADERS)
        return response
