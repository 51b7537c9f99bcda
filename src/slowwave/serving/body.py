"""Bodies of requests: bounded before they are parsed, and parsed away from the event loop."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from slowwave.serving.errors import MOST_SHOWN, ApiError, explain_fields, shorten
from slowwave.serving.json_bounds import require_bounds

Fields = TypeVar("Fields", bound=BaseModel)

AT_ONCE = 2**14
"""Bytes that are parsed in the event loop, in a few milliseconds at most."""
MOST_NAMED = 16
"""Fields that a header names."""


def body_of(kind: type[BaseModel], *, is_optional: bool = False) -> Any:
    """For FastAPI: the body of a request as its fields; without one None where that is allowed.

    FastAPI itself parses, checks and collects every error in the event loop.
    """

    async def read(request: Request) -> BaseModel | None:
        content = await _receive(request)
        if not content:
            if is_optional:
                return None
            raise ApiError(422, "the body is missing; give it")
        _require_json(request)
        server = request.app.state.server
        ignored = request.state.ignored = list[str]() if server.is_lenient else None
        if len(content) <= AT_ONCE:
            return parse(content, kind, ignored)
        return await server.engine.compute(parse, content, kind, ignored)

    return Depends(read)


def parse(content: bytes, kind: type[Fields], ignored: list[str] | None = None) -> Fields:
    """The fields of a body; raises ApiError that names the first that is wrong.

    ignored: gets the names of what a lenient server leaves out; None if it leaves out nothing.
    """
    require_bounds(content)
    try:
        values = json.loads(content.decode("utf-8-sig"))
    except ValueError:
        raise ApiError(400, "the body is no valid JSON; mend it") from None
    try:
        return kind.model_validate(values, context=ignored)
    except ValidationError as error:
        raise explain_fields(error.errors()[0]) from None


def describe_ignored(request: Request) -> dict[str, str]:
    """The header that tells which fields of a body were left out; none if none was."""
    names = request.state.ignored
    if not names:
        return {}
    shown = [re.sub(r"[^\w.-]", "?", shorten(name, MOST_SHOWN), flags=re.A) for name in names]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    fields = f"{', '.join(shown[:MOST_NAMED])}{more}"
    return {"Warning": f'299 slowwave "left out, since it is not served here: {fields}"'}


async def _receive(request: Request) -> bytes:
    seconds = request.app.state.server.config.body_seconds
    try:
        async with asyncio.timeout(seconds):
            return await request.body()
    except TimeoutError:
        raise ApiError(
            408, f"the body took more than {seconds:g} seconds; send it again, or send less"
        ) from None


def _require_json(request: Request) -> None:
    kind, advice = request.headers.get("content-type"), "send Content-Type: application/json"
    if not kind:
        raise ApiError(415, f"the body has no content type; {advice}")
    kind = kind.partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and "+json" in kind):
        raise ApiError(415, f"the body's content type is {kind!r}; {advice}")
