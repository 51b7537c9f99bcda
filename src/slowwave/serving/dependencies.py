"""Arguments that FastAPI passes to endpoints: who sends the request, and its body.

A body is bounded before it is parsed. A parser makes an object of each value in it, and a validator
perhaps an error, which takes a thousand times as long as to count the values.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from slowwave.serving.errors import MOST_SHOWN, ApiError, explain_fields, shorten
from slowwave.serving.server import Server

Fields = TypeVar("Fields", bound=BaseModel)

AT_ONCE = 2**14
"""Bytes that are parsed in the event loop, in a few milliseconds at most."""
MOST_NAMED = 16
"""Fields that a header names."""
MOST_VALUES = 2**15
"""Values in a body: 4096 messages with a name and a part each have 28,672."""
MOST_DEPTH = 32
MOST_DIGITS = 100
"""Characters of a number; nothing here needs more than a float's or a 64-bit integer's."""
SLICE_BYTES = 2**16
"""Bytes of a body that are counted at a time."""

_BRACKETS = b"[]{}"
_NO_BRACKETS = bytes(set(range(256)) - set(_BRACKETS))
_SEPARATORS = bytes.maketrans(b"[]{},:", b" " * 6)


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """A request that was let in. notes: what the access log says of it besides."""

    server: Server
    owner: str
    notes: dict[str, Any]


async def find_access(request: Request) -> Access:
    """Filled in by AccessMiddleware; async, since FastAPI calls other functions in a thread."""
    return Access(request.app.state.server, request.state.owner, request.state.notes)


CurrentAccess = Annotated[Access, Depends(find_access)]


def body_of(kind: type[BaseModel], *, is_optional: bool = False) -> Any:
    """A dependency: the fields of the request's body; None without a body if that is allowed.

    FastAPI's own would parse, validate and collect every error in the event loop.
    """

    async def read(request: Request) -> BaseModel | None:
        content = await read_body(request, is_optional=is_optional)
        if not content:
            return None
        server = request.app.state.server
        ignored = request.state.ignored = list[str]() if server.is_lenient else None
        if len(content) <= AT_ONCE:
            return parse(content, kind, ignored)
        return await server.engine.compute(parse, content, kind, ignored)

    return Depends(read)


async def read_body(request: Request, *, is_optional: bool = False) -> bytes:
    """The bytes of a body of JSON; raises ApiError if they are too many, too slow or missing."""
    content = await _receive(request)
    if content:
        _require_json(request)
    elif not is_optional:
        raise ApiError(422, "the body is missing; give it")
    return content


def parse(content: bytes, kind: type[Fields], ignored: list[str] | None = None) -> Fields:
    """The fields of a body; raises ApiError that names the first that is wrong.

    ignored: gets the names of the fields that a lenient server leaves out; None if it refuses them.
    """
    values = parse_json(content)
    try:
        return kind.model_validate(values, context=ignored)
    except ValidationError as error:
        raise explain_fields(error.errors()[0]) from None


def parse_json(content: bytes) -> Any:
    """The value of a body; raises ApiError if it is none, ValueError if there is too much in it."""
    require_bounds(content)
    try:
        return json.loads(content.decode("utf-8-sig"))
    except ValueError:
        raise ApiError(400, "the body is no valid JSON; mend it") from None


def describe_ignored(request: Request) -> dict[str, str]:
    """The header that names the fields of a body that were left out; none if none was."""
    names = request.state.ignored
    if not names:
        return {}
    shown = [re.sub(r"[^\w.-]", "?", shorten(name, MOST_SHOWN), flags=re.A) for name in names]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    fields = f"{', '.join(shown[:MOST_NAMED])}{more}"
    return {"Warning": f'299 slowwave "left out, since it is not served here: {fields}"'}


async def _receive(request: Request) -> bytes:
    config, content = request.app.state.server.config, bytearray()
    most, seconds = config.max_body_bytes, config.body_seconds
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most:
        raise _too_large(announced, most)
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                content += chunk
                if len(content) > most:
                    raise _too_large(f"more than {most}", most)
    except TimeoutError:
        raise ApiError(
            408, f"the body took more than {seconds:g} seconds; send it again, or send less"
        ) from None
    return bytes(content)


def _too_large(size: str, most: int) -> ApiError:
    return ApiError(
        413, f"the body has {size} bytes, and {most} are allowed; send less", code="too_large"
    )


def _require_json(request: Request) -> None:
    kind, advice = request.headers.get("content-type"), "send Content-Type: application/json"
    if not kind:
        raise ApiError(415, f"the body has no content type; {advice}")
    kind = kind.partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and "+json" in kind):
        raise ApiError(415, f"the body's content type is {kind!r}; {advice}")


def require_bounds(text: bytes) -> None:
    """Raises ValueError if a UTF-8 text has more in it than may be parsed.

    It need not be JSON: the parser refuses what is not. Every step here is one of C over a slice.
    """
    is_string, escape, num_values, depth = False, b"", 0, 0
    for start in range(0, len(text), SLICE_BYTES):
        part = escape + text[start : start + SLICE_BYTES]
        # Without the quotes within strings, every other quote begins a string.
        part = part.replace(rb"\\", b"").replace(rb"\"", b"")
        escape = b"\\" if part.endswith(b"\\") else b""
        texts = part.removesuffix(b"\\").split(b'"')
        structure = b" ".join(texts[1 if is_string else 0 :: 2])
        is_string ^= len(texts) % 2 == 0
        num_values += structure.count(b",") + structure.count(b"[") + structure.count(b"{")
        if num_values > MOST_VALUES:
            raise ValueError(f"the body has more than {MOST_VALUES} values; send less")
        depth = _follow(structure, depth)
        words = structure.translate(_SEPARATORS).split()
        if max(map(len, words), default=0) > MOST_DIGITS:
            raise ValueError(
                f"the body has a number of more than {MOST_DIGITS} digits; write a shorter one"
            )


def _follow(structure: bytes, depth: int) -> int:
    """The depth at the end of a slice; raises ValueError if it is too deep before."""
    brackets = structure.translate(None, _NO_BRACKETS)
    if brackets.count(b"]") + brackets.count(b"}") > MOST_VALUES:
        return depth  # that is no JSON
    for bracket in brackets:
        depth += 1 if bracket in b"[{" else -1
        if depth > MOST_DEPTH:
            raise ValueError(f"the body nests more than {MOST_DEPTH} levels; make it flatter")
    return depth
