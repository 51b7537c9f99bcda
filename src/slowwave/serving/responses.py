"""Responses that FastAPI lacks: JSON that may be long, open files, and server-sent events.

Long ones are made away from the event loop, and written an item at a time: a JSON writer in C lets
no other thread run, however much it has to write.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, BinaryIO
from urllib.parse import quote

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from slowwave.serving.engine import Engine

SENT_AT_ONCE = 2**16
"""Bytes of a file."""


def write_json(value: Any) -> str:
    """A value as JSON; items of lists and objects one after the other."""
    return "".join(_write(value))


def _write(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for i, (name, item) in enumerate(value.items()):
            yield f"{',' if i else '{'}{_dump(name)}:"
            yield from _write(item)
        yield "}" if value else "{}"
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield "," if i else "["
            yield from _write(item)
        yield "]" if value else "[]"
    else:
        yield _dump(value)


_dump = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


async def answer_json(
    engine: Engine, make: Callable[..., dict[str, Any]], *arguments: Any
) -> Response:
    """The response with the object that `make` returns, which may read from disk for long."""

    def write() -> bytes:
        return write_json(make(*arguments)).encode()

    return Response(await engine.look(write), media_type="application/json")


class FileAnswer(Response):
    """Sends an open file from its beginning, and closes it. name: for a client that saves it."""

    def __init__(self, engine: Engine, file: BinaryIO, name: str) -> None:
        headers = {
            "Content-Length": str(file.seek(0, io.SEEK_END)),
            "Content-Disposition": f"attachment; filename*=utf-8''{quote(name, safe='')}",
        }
        super().__init__(headers=headers, media_type="application/zip")
        self._engine, self._file = engine, file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See Response."""
        with self._file:
            self._file.seek(0)
            await send(_start(self))
            is_more = True
            while is_more:
                body = await self._engine.look(self._file.read, SENT_AT_ONCE)
                is_more = bool(body)
                await send({"type": "http.response.body", "body": body, "more_body": is_more})


class EventStream(Response):
    """Sends texts, or bytes of them, as they come, until there are no more or the client hangs up.

    on_end: called once, however it ended. headers: beside those of every stream.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        texts: AsyncIterator[str] | AsyncIterator[bytes],
        on_end: Callable[[], object],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        # X-Accel-Buffering: nginx would hold events back until its buffer is full.
        fixed = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(headers={**fixed, **(headers or {})})
        del self.headers["content-length"]
        self._texts, self._on_end = texts, on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See Response."""
        sending = asyncio.create_task(self._send_all(send))
        try:
            if await finish_unless_gone(sending, receive):
                sending.result()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            self._on_end()

    async def _send_all(self, send: Send) -> None:
        await send(_start(self))
        try:
            async for text in self._texts:
                body = text if isinstance(text, bytes) else text.encode()
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except OSError:
            pass  # the client hung up


def event(data: Any, kind: str | None = None) -> str:
    """An event that carries JSON. kind: its name, for clients that listen by name."""
    named = f"event: {kind}\n" if kind else ""
    return named + event_of(json.dumps(data, separators=(",", ":")))


def event_of(text: str) -> str:
    """An event that carries this line."""
    return f"data: {text}\n\n"


def comment(text: str) -> str:
    """A line that keeps a connection open and that clients ignore."""
    return f": {text}\n\n"


async def finish_unless_gone(task: asyncio.Future[Any], receive: Receive) -> bool:
    """Waits for a task while the client listens; False if it hung up before.

    The body of its request must have been read. An error of the task is left in it.
    """
    gone = asyncio.create_task(_wait_until_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
    return task.done()


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _start(response: Response) -> dict[str, Any]:
    headers = response.raw_headers
    return {"type": "http.response.start", "status": response.status_code, "headers": headers}
