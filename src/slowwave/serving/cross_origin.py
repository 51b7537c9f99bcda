"""Pages from elsewhere that may ask in a browser: with a key, and only those that are named."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from slowwave.serving.errors import ApiError


class CrossOrigin(CORSMiddleware):
    """ASGI middleware: browsers ask it first, without the key, whether a page may ask at all."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("*",),  # OpenAI's client sends a dozen of its own
            expose_headers=("Retry-After", "Warning"),
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """See CORSMiddleware."""
        origin = request_headers["origin"]
        if not self.is_allowed_origin(origin):
            told = ApiError(
                403,
                f"origin {origin!r} is no page that may ask here; start the server with "
                f"--limits.origins {origin}",
            )
            return JSONResponse(told.body(), told.status_code)
        return super().preflight_response(request_headers)
