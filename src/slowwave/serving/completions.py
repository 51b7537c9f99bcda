"""/v1/chat/completions, /v1/completions and /v1/models, as OpenAI's clients know them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response

from slowwave.serving.access import Access, Asked
from slowwave.serving.answers import write_json
from slowwave.serving.body import body_of
from slowwave.serving.errors import CLIENT_GONE, ApiError, explain
from slowwave.serving.event_stream import EventStream, comment, event, event_of, wait_until_gone
from slowwave.serving.feed import make_key
from slowwave.serving.history import Message
from slowwave.serving.plan import Wish
from slowwave.serving.requests import ChatRequest, CompletionFields, CompletionRequest
from slowwave.serving.server import Server
from slowwave.serving.shapes import ChatShape, Shape, TextShape
from slowwave.serving.turns import Turn

FEW_SLEEPS = 32

Chat = Annotated[ChatRequest, body_of(ChatRequest)]
Text = Annotated[CompletionRequest, body_of(CompletionRequest)]

router = APIRouter(tags=["completions"])


@router.get("/v1/models")
async def list_models(access: Asked) -> dict[str, Any]:
    """The only model."""
    return {"object": "list", "data": [_describe_model(access.server)]}


@router.get("/v1/models/{model:path}")
async def show_model(access: Asked, model: str) -> dict[str, Any]:
    """The only model."""
    _require_model(access.server, model)
    return _describe_model(access.server)


@router.post("/v1/chat/completions")
async def complete_chat(access: Asked, request: Request, body: Chat) -> Response:
    """Reads what is new of a conversation, and replies."""
    chat = access.server.talker.chat
    if chat is None:
        raise ApiError(
            400,
            f"model {access.server.model_name} has no chat format; use /v1/completions",
            param="model",
        )
    messages = [message.read(body.source) for message in body.messages]
    for i, message in enumerate(messages):
        if not message.text.strip() and message.role != "assistant":
            raise ApiError(400, f"messages.{i}.content is empty; say something", param="messages")
    messages = [message for message in messages if message.text.strip()]
    wish = await _make_wish(access, request, body, messages, True, body.max_completion_tokens)
    return await _respond(access, request, body, wish, ChatShape(access.server.model_name))


@router.post("/v1/completions")
async def complete(access: Asked, request: Request, body: Text) -> Response:
    """Reads a text as it is, and goes on with it."""
    if not body.text:
        raise ApiError(400, "prompt is empty; give some text to go on with", param="prompt")
    message = Message("user", body.text, body.source or "")
    wish = await _make_wish(access, request, body, [message], False)
    return await _respond(access, request, body, wish, TextShape(access.server.model_name))


async def _make_wish(
    access: Access,
    request: Request,
    body: CompletionFields,
    messages: Sequence[Message],
    is_chat: bool,
    max_completion_tokens: int | None = None,
) -> Wish:
    server = access.server
    _require_model(server, body.model)
    most = server.config.max_tokens
    max_tokens = max_completion_tokens or body.max_tokens or server.config.default_max_tokens
    if max_tokens > most:
        raise ApiError(400, f"max_tokens is {max_tokens}; use {most} or less", param="max_tokens")
    if "" in body.stop:
        raise ApiError(400, "stop holds an empty text, which is everywhere; leave it out")
    return Wish(
        key=None if body.memory is None else make_key(access.owner, body.memory),
        messages=messages,
        is_chat=is_chat,
        max_tokens=max_tokens,
        stop=body.stop,
        sampling=body.sampling(),
        request=await _find_digest(access, request, body),
        is_retry=request.headers.get("x-stainless-retry-count", "0") != "0",
    )


async def _find_digest(access: Access, request: Request, body: CompletionFields) -> str:
    """Of the Idempotency-Key, and of the request that it stands for; "" without one."""
    key = request.headers.get("idempotency-key", "")
    return await access.server.engine.compute(_digest, key, body) if key else ""


def _digest(key: str, body: CompletionFields) -> str:
    parts = (key.encode(), body.model_dump_json().encode())
    return ":".join(hashlib.blake2b(part, digest_size=16).hexdigest() for part in parts)


async def _respond(
    access: Access, request: Request, body: CompletionFields, wish: Wish, shape: Shape
) -> Response:
    turn = Turn(access.server, wish)
    pieces = turn.pieces(access.server.config.keep_alive_seconds)
    if not body.stream:
        return await _answer_whole(access, request, shape, turn, pieces)
    # What goes wrong at once is told by the status; later there is one already.
    first = asyncio.ensure_future(anext(pieces, None))
    gone = asyncio.create_task(wait_until_gone(request.receive))
    try:
        await asyncio.wait({first, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
    if not first.done():
        turn.stop()
        first.cancel()
        return Response(status_code=CLIENT_GONE)
    texts = _stream(access, shape, turn, first.result(), pieces, body.include_usage)
    return EventStream(texts, turn.stop)


async def _answer_whole(
    access: Access,
    request: Request,
    shape: Shape,
    turn: Turn,
    pieces: AsyncIterator[str],
) -> Response:
    async def gather() -> str:
        return "".join([piece async for piece in pieces])

    reply = asyncio.create_task(gather())
    gone = asyncio.create_task(wait_until_gone(request.receive))
    try:
        await asyncio.wait({reply, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        turn.stop()
    if not reply.done():
        reply.cancel()
        return Response(status_code=CLIENT_GONE)
    _note(access, turn)
    text = await _write(access, turn, lambda: shape.whole(reply.result(), turn))
    return Response(text, media_type="application/json")


async def _stream(
    access: Access,
    shape: Shape,
    turn: Turn,
    first: str | None,
    rest: AsyncIterator[str],
    include_usage: bool,
) -> AsyncIterator[str]:
    for opening in shape.opening():
        yield event(opening)
    try:
        if first is not None:
            yield event(shape.piece(first)) if first else comment(turn.activity)
            async for piece in rest:
                yield event(shape.piece(piece)) if piece else comment(turn.activity)
        yield event_of(await _write(access, turn, lambda: shape.ending(turn)))
        if include_usage:
            yield event(shape.usage(turn))
    except Exception as error:
        yield event(explain(error).body())
    _note(access, turn)
    yield event_of("[DONE]")


async def _write(access: Access, turn: Turn, make: Callable[[], dict[str, Any]]) -> str:
    """JSON that tells of the turn's sleeps, of which a long prompt has thousands."""
    if len(turn.outcome.sleeps) <= FEW_SLEEPS:
        return write_json(make())
    return await access.server.engine.compute(lambda: write_json(make()))


def _note(access: Access, turn: Turn) -> None:
    outcome = turn.outcome
    access.notes.update(
        told=outcome.num_told,
        remembered=outcome.num_remembered,
        said=outcome.num_drawn,
        sleeps=len(outcome.sleeps),
    )


def _require_model(server: Server, model: str) -> None:
    if model != server.model_name:
        raise ApiError(
            404,
            f"model {model!r} is not here; use {server.model_name!r}",
            param="model",
            code="model_not_found",
        )


def _describe_model(server: Server) -> dict[str, Any]:
    return {
        "id": server.model_name,
        "object": "model",
        "created": server.started,
        "owned_by": "slowwave",
    }
