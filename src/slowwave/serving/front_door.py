"""What every request passes: its key, its size, and the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from slowwave.serving.api_keys import ApiKeys
from slowwave.serving.errors import CLIENT_GONE, ApiError, explain
from slowwave.serving.metrics import Metrics

LOG = logging.getLogger("slowwave.serving")

MOST_LOGGED = 200
"""Signs of a path."""
GUARDED = ("/v1/", "/metrics")
"""Paths that need a key, where there are keys."""


class FrontDoor:
    """ASGI middleware. Logs method, path, status, owner and counts, and nothing that was said."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: ApiKeys,
        hosts: Sequence[str] | None,
        max_body_bytes: int,
        metrics: Metrics,
    ) -> None:
        self._app, self._keys, self._hosts = app, keys, hosts
        self._max_body_bytes, self._metrics = max_body_bytes, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, notes = time.monotonic(), 0, dict[str, Any]()
        state = scope.setdefault("state", {})
        state["owner"], state["notes"] = "", notes

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        headers = Headers(scope=scope)
        try:
            self._require_own_page(headers)
            if scope["path"].startswith(GUARDED):
                state["owner"] = self._keys.find_owner(headers.get("authorization"))
            await self._app(scope, self._limit(scope, receive), send_noting)
        except ClientDisconnect:
            status = status or CLIENT_GONE
        except Exception as error:
            told = explain(error)
            if told.status_code == 500:
                LOG.exception("a request failed")
            if not status:
                answer = JSONResponse(told.body(), told.status_code, told.headers)
                await answer(scope, receive, send_noting)
        finally:
            self._log(scope, status, time.monotonic() - began, state["owner"], notes)

    def _require_own_page(self, headers: Headers) -> None:
        """Without keys, a page from elsewhere that runs in a browser here must not ask.

        Neither under its own name, which its name server may say is this machine, nor under ours.
        """
        if self._keys:
            return
        host, origin = headers.get("host", ""), headers.get("origin")
        name = urlsplit(f"//{host}").hostname
        if self._hosts is not None and name not in self._hosts:
            raise ApiError(403, f"host {host!r} is not served here; use {self._hosts[0]}")
        if origin is not None and urlsplit(origin).netloc != host:
            raise ApiError(
                403,
                f"origin {origin!r} is another page; start the server with --api-keys FILE and "
                f"--limits.origins {origin}, and it may ask with a key",
            )

    def _limit(self, scope: Scope, receive: Receive) -> Receive:
        announced = Headers(scope=scope).get("content-length", "")
        most, count = self._max_body_bytes, 0

        async def receive_counting() -> Message:
            nonlocal count
            if announced.isdecimal() and int(announced) > most:
                raise self._too_large(announced)
            message = await receive()
            count += len(message.get("body", b""))
            if count > most:
                raise self._too_large(f"more than {most}")
            return message

        return receive_counting

    def _too_large(self, size: str) -> ApiError:
        most = self._max_body_bytes
        return ApiError(
            413, f"the body has {size} bytes, and {most} are allowed; send less", code="too_large"
        )

    def _log(
        self, scope: Scope, status: int, seconds: float, owner: str, notes: dict[str, Any]
    ) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.requests.labels(route, str(status)).inc()
        said = "".join(f" {name}={value}" for name, value in notes.items())
        path = scope["path"][:MOST_LOGGED].encode("unicode_escape").decode()  # always one line
        LOG.info(
            "%s %s %d %.0fms owner=%s%s",
            scope["method"],
            path,
            status,
            1000 * seconds,
            owner or "-",
            said,
        )
