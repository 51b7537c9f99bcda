"""Who may send requests: API keys, web pages of other origins, and the middleware that checks both.

Each key belongs to an owner, who has memories of its own.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from slowwave.memory.names import OWNER
from slowwave.memory.private_store import FILES, FOLDERS
from slowwave.serving.errors import CLIENT_GONE, ApiError, explain
from slowwave.serving.monitoring import Metrics

LOG = logging.getLogger("slowwave.serving")

RESERVED = (*FOLDERS, *FILES)
"""Beside the folders of owners there may be a store from the time before there were keys."""
GUARDED = ("/v1/", "/metrics")
"""Paths that need a key, where there are keys."""
MOST_LOGGED = 200
"""Characters of a path."""


class ApiKeys:
    """The owners of keys, by the keys' digests. Without any, all clients are the owner ""."""

    def __init__(self, owners: Mapping[bytes, str]) -> None:
        self._owners = owners

    def __bool__(self) -> bool:
        return bool(self._owners)

    def find_owner(self, authorization: str | None) -> str:
        """The owner of the key in an Authorization header; raises ApiError if there is none."""
        if not self._owners:
            return ""
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise ApiError(
                401,
                "the API key is missing; send it as 'Authorization: Bearer KEY'",
                code="missing_api_key",
            )
        given, found = _digest(key.strip()), None
        for digest, owner in self._owners.items():  # all, so that the time taken reveals nothing
            if hmac.compare_digest(given, digest):
                found = owner
        if found is None:
            raise ApiError(
                401, "the API key is wrong; use one that was given out", code="invalid_api_key"
            )
        return found


def read_api_keys(path: str | Path) -> ApiKeys:
    """Reads a file of lines "owner key"; empty lines and lines that begin with # are left out.

    Logs a warning if others can read the file too. Raises ValueError if the file is missing or a
    line is wrong; the message never holds a key.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        if Path(path).stat().st_mode & stat.S_IROTH:
            LOG.warning("%s: anybody on this machine can read the keys; chmod 600 it", path)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; name a file of lines 'owner key'") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is no text; name a file of lines 'owner key'") from None
    owners, num_keys = dict[bytes, str](), 0
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or not OWNER.fullmatch(words[0]):
            raise ValueError(
                f"{path}: line {number} is not 'owner key'; an owner has 1 to 64 letters, digits, "
                "dots, dashes or underscores, and a key has no spaces"
            )
        owners[_digest(words[1])] = words[0]
        num_keys += 1
    if not owners:
        raise ValueError(f"{path}: has no keys; write lines 'owner key'")
    if len(owners) < num_keys:
        raise ValueError(f"{path}: a key is there twice; give every owner keys of its own")
    _check_owners(path, sorted(set(owners.values())))
    return ApiKeys(owners)


def _check_owners(path: str | Path, owners: list[str]) -> None:
    """Some file systems do not tell upper case from lower: folders must not be shared there."""
    known: dict[str, str] = {}
    for owner in owners:
        other = known.setdefault(owner.casefold(), owner)
        if other != owner:
            raise ValueError(
                f"{path}: owners {other!r} and {owner!r} differ in case alone; rename one"
            )
        if owner.casefold() in RESERVED:
            raise ValueError(
                f"{path}: owner {owner!r} is what a store calls a file of its own; rename it"
            )


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


class CrossOriginMiddleware(CORSMiddleware):
    """Lets pages of these origins send requests, with a key, and refuses the preflights of others.

    It comes before the check of the key, since browsers send preflights without one.
    """

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
            return ApiError(
                403,
                f"origin {origin!r} is no page that may ask here; start the server with "
                f"--limits.origins {origin}",
            ).response()
        return super().preflight_response(request_headers)


class AccessMiddleware:
    """Finds the owner of a request, answers errors, and writes the access log.

    The log has method, path, status, owner and counts, and no text of a request or a reply.
    """

    def __init__(
        self, app: ASGIApp, *, keys: ApiKeys, hosts: Sequence[str] | None, metrics: Metrics
    ) -> None:
        self._app, self._keys, self._hosts, self._metrics = app, keys, hosts, metrics

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
            await self._app(scope, receive, send_noting)
        except ClientDisconnect:
            status = status or CLIENT_GONE
        except Exception as error:
            told = explain(error)
            if told.status_code == 500:
                LOG.exception("a request failed")
            if not status:
                await told.response()(scope, receive, send_noting)
        finally:
            self._log(scope, status, time.monotonic() - began, state["owner"], notes)

    def _require_own_page(self, headers: Headers) -> None:
        """Without keys, refuses pages of other sites that run in a browser on this machine.

        They may address this server by its own name, or by theirs, which their name server then
        resolves to this machine (DNS rebinding).
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
