"""The proxy as an ASGI application: chats that go on to the upstream, and their memories."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request, Response

from slowwave.memory.notes_config import MOST_SECONDS, EndpointConfig, NotesFile
from slowwave.memory.store_view import SessionInfo
from slowwave.memory.text_session import TextSession
from slowwave.serving.access import ApiKeys
from slowwave.serving.app import assemble, common
from slowwave.serving.completions import OF_MEMORY
from slowwave.serving.config import ServeConfig
from slowwave.serving.dependencies import body_of, parse_json, read_body
from slowwave.serving.errors import CLIENT_GONE, MOST_SHOWN, ApiError, explain, shorten, too_late
from slowwave.serving.monitoring import Key, Metrics, make_key
from slowwave.serving.past import describe_ledger, describe_sources
from slowwave.serving.requests import LONGEST_NAME, ForgetRequest
from slowwave.serving.responses import EventStream, answer_json, event, finish_unless_gone
from slowwave.serving.upstream.exchange import Exchange, MemoryRequest
from slowwave.serving.upstream.prompt import read_messages
from slowwave.serving.upstream.server import UpstreamServer, see_through

OURS = ("memory", "source")
"""Fields of a request that the upstream does not know."""

router = APIRouter(tags=["upstream"])


def create_proxy(
    endpoint: EndpointConfig,
    *,
    memory_dir: str | Path,
    notes: NotesFile | None = None,
    config: ServeConfig | None = None,
    keys: ApiKeys | None = None,
    hosts: Sequence[str] | None = None,
) -> FastAPI:
    """Serves the models at an endpoint, with memories in words.

    notes: who writes them, and how; if not given the model that a memory is used with. The rest is
    as in `serving.app.create_app`.
    """
    config, keys, metrics = config or ServeConfig(), keys or ApiKeys({}), Metrics()
    endpoint = dataclasses.replace(endpoint, seconds=min(config.request_seconds, MOST_SECONDS))

    @contextlib.asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        app.state.server = server = UpstreamServer(
            endpoint, notes=notes, memory_dir=Path(memory_dir), config=config, metrics=metrics
        )
        try:
            if not keys:
                await server.store("")  # a damaged store is reported at once
            yield
        finally:
            await server.close()

    return assemble(live, (router, common), config=config, keys=keys, hosts=hosts, metrics=metrics)


# What goes on to the upstream.


@router.post("/v1/chat/completions")
@router.post(OF_MEMORY + "/v1/chat/completions")
async def complete_chat(request: Request) -> Response:
    """A request as it is; with a memory it gets what that holds, and the reply is kept."""
    content = await read_body(request)
    asked = await _server(request).engine.compute(_read_request, request, content)
    return await _answer(request, "/chat/completions", asked)


@router.get("/v1/models")
@router.get(OF_MEMORY + "/v1/models")
async def list_models(request: Request) -> Response:
    """The models of the upstream."""
    return await _answer(request, "/models", None)


def _read_request(request: Request, content: bytes) -> MemoryRequest | bytes:
    """What is asked with a memory; the body as it came if none is named."""
    fields = parse_json(content)
    if not isinstance(fields, dict):
        raise ApiError(400, "the body is no object; send a chat request")
    for name in OURS:
        _require_name(name, fields.get(name))
    named, address = fields.get("memory"), request.path_params.get("name")
    if named is not None and address is not None and named != address:
        message = f"two memories are named: memory has {named!r}, the address has {address!r}"
        raise ApiError(400, f"{message}; use one", param="memory")
    left = {name: value for name, value in fields.items() if name not in OURS}
    memory = address if named is None else named
    if memory is None:
        return json.dumps(left).encode() if "memory" in fields else content
    if fields.get("n") not in (None, 1):
        raise ApiError(400, "n is not 1; a memory keeps one reply to a request", param="n")
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        raise ApiError(422, "model is missing; name a model of the upstream", param="model")
    return MemoryRequest(
        key=make_key(request.state.owner, memory),
        model=model,
        messages=read_messages(fields.get("messages"), fields.get("source")),
        is_retry=request.headers.get("x-stainless-retry-count", "0") != "0",
        fields=left,
    )


def _require_name(name: str, value: Any) -> None:
    if value is not None and not (isinstance(value, str) and 0 < len(value) <= LONGEST_NAME):
        advice = f"use a text of 1 to {LONGEST_NAME} characters"
        raise ApiError(422, f"{name} is {shorten(repr(value), MOST_SHOWN)}; {advice}", param=name)


async def _answer(request: Request, path: str, asked: MemoryRequest | bytes | None) -> Response:
    """The upstream's answer; a client that hangs up ends the exchange."""
    exchange = Exchange(_server(request), path, asked)
    begun = asyncio.ensure_future(exchange.head())
    try:
        if not await finish_unless_gone(begun, request.receive):
            begun.cancel()
            exchange.stop()
            return Response(status_code=CLIENT_GONE)
        head = begun.result()
        headers = {"Content-Type": head.kind or "application/json"}
        if head.retry_after is not None:
            headers["Retry-After"] = head.retry_after
        if head.status == 200 and head.is_stream:
            return EventStream(_stream(exchange), exchange.stop, headers)
        content = b"".join([part async for part in exchange.parts()])
        return Response(content, head.status, headers)
    except BaseException:
        exchange.stop()
        raise


async def _stream(exchange: Exchange) -> AsyncIterator[bytes]:
    try:
        async for part in exchange.parts():
            yield part
    except Exception as error:
        yield event(explain(error).body()).encode()


def _server(request: Request) -> UpstreamServer:
    return request.app.state.server


# The memories.


@router.get("/v1/memories")
async def list_memories(request: Request) -> Response:
    """All memories of the client, by name."""
    store = await _server(request).store(request.state.owner)

    def describe() -> dict[str, Any]:
        return {"object": "list", "data": [_describe(info) for info in store.sessions()]}

    return await answer_json(_server(request).engine, describe)


@router.get("/v1/memories/{name}")
async def show_memory(request: Request, name: str) -> Response:
    """A memory with its notes and its episodes in force."""
    store = await _server(request).store(request.state.owner)

    def describe() -> dict[str, Any]:
        info, book = store.info(name), store.notebook(name)
        episodes = [dataclasses.asdict(each) for each in book.episodes()]
        words = {"notes": book.block(), "episodes": episodes, "num_waiting": book.num_waiting()}
        return {**_describe(info), **words}

    return await answer_json(_server(request).engine, describe)


@router.delete("/v1/memories/{name}")
async def delete_memory(request: Request, name: str) -> dict[str, Any]:
    """Deletes a memory with its snapshots; forks stay."""
    server = _server(request)
    with server.take_place():
        await server.remove(Key(request.state.owner, name))
    store = await server.store(request.state.owner)
    is_wiped = await server.engine.call(store.is_wiped)
    return {"name": name, "object": "memory", "deleted": True, "is_wiped": is_wiped}


@router.get("/v1/memories/{name}/ledger")
async def show_ledger(
    request: Request,
    name: str,
    start: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """What was told and replied, from a place on."""
    store = await _server(request).store(request.state.owner)
    return await answer_json(_server(request).engine, describe_ledger, store, name, start, limit)


@router.get("/v1/memories/{name}/sources")
async def show_sources(request: Request, name: str) -> Response:
    """Who said how much."""
    store = await _server(request).store(request.state.owner)
    return await answer_json(_server(request).engine, describe_sources, store, name)


@router.post("/v1/memories/{name}/sleep")
async def sleep(request: Request, name: str) -> dict[str, Any]:
    """Lets the notes be written now."""
    server = _server(request)
    seconds = server.config.request_seconds
    try:
        with server.take_place():
            async with asyncio.timeout(seconds):
                written = await server.sleep(Key(request.state.owner, name))
    except TimeoutError:
        raise too_late(seconds, "the sleep goes on, and keeps what it writes") from None
    receipts = {
        "notes": [dataclasses.asdict(each) for each in written.notes],
        "readings": [dataclasses.asdict(each) for each in written.readings],
    }
    return {"name": name, "outcome": written.outcome, "why": written.why, **receipts}


@router.post("/v1/memories/{name}/forget")
async def forget(
    request: Request, name: str, body: Annotated[ForgetRequest, body_of(ForgetRequest)]
) -> dict[str, Any]:
    """Forgets sources and places of the ledger, or with dry_run says what that would do."""
    server = _server(request)
    with server.take_place():
        async with server.use(Key(request.state.owner, name)) as session:
            told = await see_through(server.engine.call(_forget, session, body))
    store = await server.store(request.state.owner)
    return {"name": name, **told, "is_wiped": await server.engine.call(store.is_wiped)}


def _forget(session: TextSession, body: ForgetRequest) -> dict[str, Any]:
    forgetting = session.preview_forgetting(
        sources=body.sources, places=body.places, keep=body.keep
    )
    if not body.dry_run:
        session.forget(forgetting)
    return {
        "dropped": forgetting.plan.dropped,
        "snapshots": forgetting.snapshots,
        "also_in": forgetting.also_in,
        "is_done": not body.dry_run,
    }


def _describe(info: SessionInfo) -> dict[str, Any]:
    fields = ("name", "created", "changed", "num_entries")
    return {"object": "memory", **{name: getattr(info, name) for name in fields}}
