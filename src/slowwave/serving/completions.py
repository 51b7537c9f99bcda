"""/v1/chat/completions, /v1/completions and /v1/models, as OpenAI's clients know them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response

from slowwave.serving.access import Access, Asked
from slowwave.serving.answers import answer_json, write_json
from slowwave.serving.body import body_of, describe_ignored
from slowwave.serving.errors import CLIENT_GONE, ApiError, explain
from slowwave.serving.event_stream import EventStream, comment, event, event_of, wait_until_gone
from slowwave.serving.feed import Key, make_key
from slowwave.serving.history import Message
from slowwave.serving.model_names import describe_model, describe_models, find_memory
from slowwave.serving.plan import Wish
from slowwave.serving.requests import ChatRequest, CompletionFields, CompletionRequest
from slowwave.serving.shapes import ChatShape, Shape, TextShape
from slowwave.serving.turns import Turn

FEW_SLEEPS = 32

Chat = Annotated[ChatRequest, body_of(ChatRequest)]
Text = Annotated[CompletionRequest, body_of(CompletionRequest)]

router = APIRouter(tags=["completions"])


OF_MEMORY = "/v1/memories/{name}"
"""With it as the beginning of their address, requests are about that memory."""


@router.get("/v1/models")
async def list_models(access: Asked) -> Response:
    """The model, alone and with each memory of the client."""
    server = access.server
    store = await server.sessions.store(access.owner)

    def describe() -> dict[str, Any]:
        data = describe_models(server.model_name, store.names(), server.started)
        return {"object": "list", "data": data}

    return await answer_json(server.engine, describe)


@router.get(OF_MEMORY + "/v1/models")
async def list_models_of_memory(access: Asked) -> dict[str, Any]:
    """The model alone: the address names the memory."""
    data = describe_models(access.server.model_name, (), access.server.started)
    return {"object": "list", "data": data}


@router.get("/v1/models/{model:path}")
@router.get(OF_MEMORY + "/v1/models/{model:path}")
async def show_model(access: Asked, request: Request, model: str) -> dict[str, Any]:
    """The model, with a memory if it is named, be it there or not."""
    _find_key(access, request, model)
    return describe_model(model, access.server.started)


@router.post("/v1/chat/completions")
@router.post(OF_MEMORY + "/v1/chat/completions")
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
    return await _respond(access, request, body, wish, ChatShape(body.model))


@router.post("/v1/completions")
@router.post(OF_MEMORY + "/v1/completions")
async def complete(access: Asked, request: Request, body: Text) -> Response:
    """Reads a text as it is, and goes on with it."""
    if not body.text:
        raise ApiError(400, "prompt is empty; give some text to go on with", param="prompt")
    message = Message("user", body.text, body.source or "")
    wish = await _make_wish(access, request, body, [message], False)
    return await _respond(access, request, body, wish, TextShape(body.model))


async def _make_wish(
    access: Access,
    request: Request,
    body: CompletionFields,
    messages: Sequence[Message],
    is_chat: bool,
    max_completion_tokens: int | None = None,
) -> Wish:
    server = access.server
    key = _find_key(access, request, body.model, body.memory)
    most = server.config.max_tokens
    max_tokens = max_completion_tokens or body.max_tokens or server.config.default_max_tokens
    if max_tokens > most:
        param = "max_completion_tokens" if max_completion_tokens else "max_tokens"
        raise ApiError(400, f"{param} is {max_tokens}; use {most} or less", param=param)
    if "" in body.stop:
        raise ApiError(
            400, "stop holds an empty text, which is everywhere; leave it out", param="stop"
        )
    return Wish(
        key=key,
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
    return EventStream(texts, turn.stop, describe_ignored(request))


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
    return Response(text, headers=describe_ignored(request), media_type="application/json")


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


def _find_key(access: Access, request: Request, model: str, field: str | None = None) -> Key | None:
    """Of the memory that a request names; raises ApiError if it cannot be, or asks for another
    model."""
    address = request.path_params.get("name")
    memory = find_memory(access.server.model_name, model=model, field=field, address=address)
    return None if memory is None else make_key(access.owner, memory)
