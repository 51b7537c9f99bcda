"""/v1/chat/completions, /v1/completions and /v1/models, as OpenAI's clients know them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response

from slowwave.serving.dependencies import Access, CurrentAccess, body_of, describe_ignored
from slowwave.serving.errors import CLIENT_GONE, ApiError, explain
from slowwave.serving.history import Message
from slowwave.serving.monitoring import Key, make_key
from slowwave.serving.plan import TurnRequest
from slowwave.serving.reply_format import ReplyFormat
from slowwave.serving.requests import ChatRequest, CompletionFields, CompletionRequest
from slowwave.serving.responses import (
    EventStream,
    answer_json,
    comment,
    event,
    event_of,
    finish_unless_gone,
    write_json,
)
from slowwave.serving.turns import Turn

FEW_SLEEPS = 32
"""Reports of sleeps that are written in the event loop."""
MEMORY_MARK = "@"
"""Between the names of model and memory; no memory's name has it."""
OF_MEMORY = "/v1/memories/{name}"
"""Requests whose address begins with it are about that memory."""

Chat = Annotated[ChatRequest, body_of(ChatRequest)]
Text = Annotated[CompletionRequest, body_of(CompletionRequest)]

router = APIRouter(tags=["completions"])


@router.get("/v1/models")
async def list_models(access: CurrentAccess) -> Response:
    """The model, alone and with each memory of the client."""
    store = await access.server.sessions.store(access.owner)
    return await answer_json(access.server.engine, lambda: _list(access, store.names()))


@router.get(OF_MEMORY + "/v1/models")
async def list_models_of_memory(access: CurrentAccess) -> dict[str, Any]:
    """The model alone: the address names the memory."""
    return _list(access, ())


@router.get("/v1/models/{model:path}")
@router.get(OF_MEMORY + "/v1/models/{model:path}")
async def show_model(access: CurrentAccess, request: Request, model: str) -> dict[str, Any]:
    """The model, with a memory if one is named, whether that exists or not."""
    _find_key(access, request, model)
    return _describe_model(access, model)


@router.post("/v1/chat/completions")
@router.post(OF_MEMORY + "/v1/chat/completions")
async def complete_chat(access: CurrentAccess, request: Request, body: Chat) -> Response:
    """Reads what is new of a conversation, and replies."""
    if access.server.talker.chat is None:
        message = f"model {access.server.model_name} has no chat format; use /v1/completions"
        raise ApiError(400, message, param="model")
    messages = [message.read(body.source) for message in body.messages]
    for i, message in enumerate(messages):
        if not message.text.strip() and message.role != "assistant":
            raise ApiError(400, f"messages.{i}.content is empty; say something", param="messages")
    return await _reply(access, request, body, [each for each in messages if each.text.strip()])


@router.post("/v1/completions")
@router.post(OF_MEMORY + "/v1/completions")
async def complete(access: CurrentAccess, request: Request, body: Text) -> Response:
    """Reads a text as it is, and goes on with it."""
    (text,) = body.prompt
    if not text:
        raise ApiError(400, "prompt is empty; give some text to go on with", param="prompt")
    return await _reply(access, request, body, [Message("user", text, body.source or "")])


async def _reply(
    access: Access, request: Request, body: CompletionFields, messages: Sequence[Message]
) -> Response:
    asked = await _read_request(access, request, body, messages)
    turn = Turn(access.server, asked)
    form = ReplyFormat(turn, model=body.model, is_chat=asked.is_chat)
    texts = turn.pieces(access.server.config.keep_alive_seconds)
    if not body.stream:
        return await _answer_whole(access, request, form, turn, texts)
    # An error before the first text is told by the status; later one has been sent already.
    first = asyncio.ensure_future(anext(texts, None))
    if not await finish_unless_gone(first, request.receive):
        turn.stop()
        first.cancel()
        return Response(status_code=CLIENT_GONE)
    events = _stream(access, form, turn, first.result(), texts, body.include_usage)
    return EventStream(events, turn.stop, describe_ignored(request))


async def _read_request(
    access: Access, request: Request, body: CompletionFields, messages: Sequence[Message]
) -> TurnRequest:
    key = _find_key(access, request, body.model, body.memory)
    most = access.server.config.max_tokens
    param, max_tokens = "max_tokens", body.max_tokens
    if isinstance(body, ChatRequest) and body.max_completion_tokens:
        param, max_tokens = "max_completion_tokens", body.max_completion_tokens
    if max_tokens is not None and max_tokens > most:
        raise ApiError(400, f"{param} is {max_tokens}; use {most} or less", param=param)
    if "" in body.stop:
        raise ApiError(
            400, "stop holds an empty text, which is everywhere; leave it out", param="stop"
        )
    header = request.headers.get("idempotency-key", "")
    digest = await access.server.engine.compute(_digest, header, body) if header else ""
    return TurnRequest(
        key=key,
        messages=messages,
        is_chat=isinstance(body, ChatRequest),
        max_tokens=max_tokens or access.server.config.default_max_tokens,
        stop=body.stop,
        sampling=body.sampling(),
        digest=digest,
        is_retry=request.headers.get("x-stainless-retry-count", "0") != "0",
    )


def _digest(idempotency_key: str, body: CompletionFields) -> str:
    parts = (idempotency_key.encode(), body.model_dump_json().encode())
    return ":".join(hashlib.blake2b(part, digest_size=16).hexdigest() for part in parts)


async def _answer_whole(
    access: Access, request: Request, form: ReplyFormat, turn: Turn, texts: AsyncIterator[str]
) -> Response:
    async def gather() -> str:
        return "".join([text async for text in texts])

    reply = asyncio.create_task(gather())
    try:
        is_whole = await finish_unless_gone(reply, request.receive)
    finally:
        turn.stop()
    if not is_whole:
        reply.cancel()
        return Response(status_code=CLIENT_GONE)
    _note(access, turn)
    content = await _write(access, turn, lambda: form.whole(reply.result()))
    return Response(content, headers=describe_ignored(request), media_type="application/json")


async def _stream(
    access: Access,
    form: ReplyFormat,
    turn: Turn,
    first: str | None,
    rest: AsyncIterator[str],
    include_usage: bool,
) -> AsyncIterator[str]:
    for opening in form.opening():
        yield event(opening)
    try:
        if first is not None:
            yield event(form.chunk(first)) if first else comment(turn.activity)
            async for text in rest:
                yield event(form.chunk(text)) if text else comment(turn.activity)
        yield event_of(await _write(access, turn, form.ending))
        if include_usage:
            yield event(form.usage_chunk())
    except Exception as error:
        yield event(explain(error).body())
    _note(access, turn)
    yield event_of("[DONE]")


async def _write(access: Access, turn: Turn, make: Callable[[], dict[str, Any]]) -> str:
    """JSON with the turn's sleeps, of which a long prompt has thousands."""
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
    """The memory that a request names; None for one that is thrown away after the reply.

    Clients that cannot send a field of ours name it in the model's name, "talk@ann", or in the
    address, /v1/memories/ann/v1. Raises ApiError if the request names two memories, one that cannot
    be, or another model.
    """
    named = {
        "the model's name": _split(access.server.model_name, model),
        "memory": field,
        "the address": request.path_params.get("name"),
    }
    found = {place: name for place, name in named.items() if name is not None}
    if len(set(found.values())) > 1:
        words = ", ".join(f"{place} has {name!r}" for place, name in found.items())
        raise ApiError(400, f"two memories are named: {words}; use one", param="memory")
    return make_key(access.owner, next(iter(found.values()))) if found else None


def _split(model_name: str, model: str) -> str | None:
    """The memory in the name of a model; raises ApiError if it is another model."""
    if model == model_name:
        return None
    prefix = f"{model_name}{MEMORY_MARK}"
    if not model.startswith(prefix):
        raise ApiError(
            404,
            f"model {model!r} is not here; use {model_name!r}, or {prefix + 'NAME'!r} with a "
            "memory of that name",
            param="model",
            code="model_not_found",
        )
    return model.removeprefix(prefix)


def _list(access: Access, memories: Iterable[str]) -> dict[str, Any]:
    """The model, and itself with each memory, as OpenAI's clients list models."""
    alone = access.server.model_name
    names = [alone, *(f"{alone}{MEMORY_MARK}{memory}" for memory in memories)]
    return {"object": "list", "data": [_describe_model(access, name) for name in names]}


def _describe_model(access: Access, name: str) -> dict[str, Any]:
    created = access.server.started
    return {"id": name, "object": "model", "created": created, "owned_by": "slowwave"}
