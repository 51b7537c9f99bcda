"""Answers that may be long: made away from the event loop, and written an item at a time.

A JSON writer in C lets no other thread come between, however much it has to write.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO
from urllib.parse import quote

from fastapi import Response
from starlette.types import Receive, Scope, Send

from slowwave.serving.engine import Engine

SENT_AT_ONCE = 2**16


def write_json(value: Any) -> str:
    """A value as JSON; items of lists and objects one after the other."""
    return "".join(_write(value))


def _write(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for place, (name, item) in enumerate(value.items()):
            yield f"{',' if place else '{'}{_dump(name)}:"
            yield from _write(item)
        yield "}" if value else "{}"
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield "," if place else "["
            yield from _write(item)
        yield "]" if value else "[]"
    else:
        yield _dump(value)


_dump = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


async def answer_json(
    engine: Engine, make: Callable[..., dict[str, Any]], *arguments: Any
) -> Response:
    """The answer with what `make` returns, which may look at the disk for long."""

    def write() -> bytes:
        return write_json(make(*arguments)).encode()

    return Response(await engine.look(write), media_type="application/json")


class FileAnswer(Response):
    """Sends an open file, from its beginning, and closes it. name: for those who keep it."""

    def __init__(self, engine: Engine, file: BinaryIO, name: str) -> None:
        headers = {
            "Content-Length": str(file.seek(0, io.SEEK_END)),
            "Content-Disposition": f"attachment; filename*=utf-8''{quote(name, safe='')}",
        }
        super().__init__(headers=headers, media_type="application/zip")
        self._engine, self._file = engine, file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See Response."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        with self._file:
            self._file.seek(0)
            await send(start)
            is_more = True
            while is_more:
                body = await self._engine.look(self._file.read, SENT_AT_ONCE)
                is_more = bool(body)
                await send({"type": "http.response.body", "body": body, "more_body": is_more})
