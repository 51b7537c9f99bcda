"""Server-sent events, and clients that go away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def event(data: Any, kind: str | None = None) -> str:
    """An event that carries JSON; kind: its name, for those who listen by name."""
    named = f"event: {kind}\n" if kind else ""
    return named + event_of(json.dumps(data, separators=(",", ":")))


def event_of(text: str) -> str:
    """An event that carries this line."""
    return f"data: {text}\n\n"


def comment(text: str) -> str:
    """What keeps a connection open and is read by nobody."""
    return f": {text}\n\n"


class EventStream(Response):
    """Sends texts as they come, until there are no more or the client goes away.

    on_end: called once, however it ended. headers: beside those of every stream.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        texts: AsyncIterator[str],
        on_end: Callable[[], object],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(headers={**HEADERS, **(headers or {})})
        del self.headers["content-length"]
        self._texts, self._on_end = texts, on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tasks = {
            asyncio.create_task(self._send_all(send)),
            asyncio.create_task(wait_until_gone(receive)),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._on_end()

    async def _send_all(self, send: Send) -> None:
        headers = self.raw_headers
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        try:
            async for text in self._texts:
                body = text.encode()
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except OSError:
            pass  # the client went away


async def wait_until_gone(receive: Receive) -> None:
    """Returns when the client has gone away; the body of its request must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
