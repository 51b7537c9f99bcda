"""/v1/memories: look into memories, let them read and sleep, fork, undo and forget."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, cast

from fastapi import APIRouter, Query, Response

from slowwave.memory.catalogue_rows import Snapshot
from slowwave.memory.names import TakenName, UnknownName
from slowwave.memory.store_view import SessionInfo
from slowwave.memory.stored_session import Forgetting, StoredSession
from slowwave.memory.turn import Steps
from slowwave.serving.dependencies import Access, CurrentAccess, body_of
from slowwave.serving.history import Message
from slowwave.serving.monitoring import Key, make_key
from slowwave.serving.past import (
    describe_ledger,
    describe_reports,
    describe_sleeps,
    describe_sources,
    describe_window,
)
from slowwave.serving.plan import tell_all
from slowwave.serving.requests import (
    CreateRequest,
    ForgetRequest,
    ForkRequest,
    ReadRequest,
    RollbackRequest,
    SleepRequest,
    SnapshotRequest,
)
from slowwave.serving.responses import EventStream, FileAnswer, answer_json, comment, event
from slowwave.serving.server import describe_status

RECENT = 16
"""Sleeps that the description of a memory tells in full."""

router = APIRouter(prefix="/v1/memories", tags=["memories"])


@router.get("")
async def list_memories(access: CurrentAccess) -> Response:
    """All memories of the client, by name, and what they take on disk."""
    store = await access.server.sessions.store(access.owner)

    def describe() -> dict[str, Any]:
        data = [_describe(access, info) for info in store.sessions()]
        return {"object": "list", "data": data, "disk": dataclasses.asdict(store.measure())}

    return await answer_json(access.server.engine, describe)


@router.post("", status_code=201)
async def make_memory(
    access: CurrentAccess, body: Annotated[CreateRequest, body_of(CreateRequest)]
) -> dict[str, Any]:
    """A new memory, in which there is nothing."""
    key = make_key(access.owner, body.name)
    store = await access.server.sessions.store(access.owner)
    with contextlib.suppress(UnknownName):
        await access.server.engine.call(store.info, key.name)
        raise TakenName(f"memory {key.name!r} is there already; choose another name")
    async with access.server.use_stored(key, create=True):
        info = await access.server.engine.call(store.info, key.name)
        return _describe(access, info)


@router.get("/{name}")
async def show_memory(access: CurrentAccess, name: str) -> Response:
    """Where a memory stands, its snapshots and its last sleeps."""
    store = await access.server.sessions.store(access.owner)

    def describe() -> dict[str, Any]:
        info = _describe(access, store.info(name))
        reports = [slept.report for slept in store.sleeps(name, RECENT)]
        return {**info, "sleeps": describe_reports(reports)}

    return await answer_json(access.server.engine, describe)


@router.delete("/{name}")
async def delete_memory(access: CurrentAccess, name: str) -> dict[str, Any]:
    """Deletes a memory with its snapshots; forks stay."""
    key = Key(access.owner, name)
    with access.server.take_place():
        await access.server.sessions.remove(key)
    access.server.feed.publish(key, "deleted", {"name": name})
    store = await access.server.sessions.store(access.owner)
    is_wiped = await access.server.engine.call(store.is_wiped)
    return {"name": name, "object": "memory", "deleted": True, "is_wiped": is_wiped}


@router.get("/{name}/ledger")
async def show_ledger(
    access: CurrentAccess,
    name: str,
    start: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    snapshot: str | None = None,
) -> Response:
    """Entries from a place on, each with the sleeps that consolidated it."""
    store = await access.server.sessions.store(access.owner)
    point = name if snapshot is None else f"{name}@{snapshot}"
    return await answer_json(access.server.engine, describe_ledger, store, point, start, limit)


@router.get("/{name}/sources")
async def show_sources(access: CurrentAccess, name: str) -> Response:
    """Who said how much, and what was read from where."""
    store = await access.server.sessions.store(access.owner)
    return await answer_json(access.server.engine, describe_sources, store, name)


@router.get("/{name}/window")
async def show_window(
    access: CurrentAccess, name: str, limit: Annotated[int, Query(ge=1, le=4096)] = 512
) -> Response:
    """The last tokens of the window, each with its text and source."""
    store, tokenizer = await access.server.sessions.store(access.owner), None
    info = await access.server.engine.call(store.info, name)
    if info.tokenizer == access.server.talker.tokenizer.fingerprint:
        tokenizer = access.server.talker.tokenizer
    return await answer_json(access.server.engine, describe_window, store, name, tokenizer, limit)


@router.get("/{name}/sleeps")
async def show_sleeps(
    access: CurrentAccess, name: str, last: Annotated[int, Query(ge=1, le=10_000)] = 1000
) -> Response:
    """The last sleeps, each with what it consolidated and when."""
    store = await access.server.sessions.store(access.owner)
    return await answer_json(access.server.engine, describe_sleeps, store, name, last)


@router.get("/{name}/events")
async def watch_memory(access: CurrentAccess, name: str) -> Response:
    """What happens to a memory from now on, as server-sent events."""
    store = await access.server.sessions.store(access.owner)
    await access.server.engine.call(store.info, name)
    return EventStream(_watch(access, Key(access.owner, name)), lambda: None)


@router.get("/{name}/export")
async def export(access: CurrentAccess, name: str) -> Response:
    """The memory as one file, which `Store.import_session` reads."""
    store = await access.server.sessions.store(access.owner)
    engine = access.server.engine
    content = await engine.look(store.pack, name)
    file = await engine.look(_write_nameless, store.directory, content)
    return FileAnswer(engine, file, f"{name}.memory")


def _write_nameless(folder: Path, content: bytes) -> BinaryIO:
    """A file that a kill leaves nothing of, and that no other process can open."""
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (the answer closes it)
    try:
        file.write(content)
    except BaseException:
        file.close()
        raise
    return cast(BinaryIO, file)


@router.post("/{name}/read")
async def read(
    access: CurrentAccess, name: str, body: Annotated[ReadRequest, body_of(ReadRequest)]
) -> Response:
    """Reads a text as it is; the memory is made if it is not there."""
    server, key = access.server, make_key(access.owner, name)
    most = server.config.max_prompt_tokens
    async with server.use_stored(key, create=True) as session:
        steps = _read(session, Message("user", body.text, body.source), most)
        count, sleeps = await server.work_in_time(key, session, steps)
        server.metrics.tokens_read.inc(count)
        access.notes.update(told=count, sleeps=len(sleeps))
        status = describe_status(session.name, session)

    def describe() -> dict[str, Any]:
        return {"tokens": count, "sleeps": describe_reports(sleeps), **status}

    return await answer_json(server.engine, describe)


def _read(session: StoredSession, message: Message, most: int) -> Steps[int]:
    """Returns how many tokens there were."""
    told = yield from tell_all(session.talker.tokenizer, None, [message], most=most, param="text")
    yield from session.take_turn(told, max_new_tokens=0)
    return len(told[0].tokens)


@router.post("/{name}/sleep")
async def sleep(
    access: CurrentAccess,
    name: str,
    body: Annotated[SleepRequest | None, body_of(SleepRequest, is_optional=True)],
) -> dict[str, Any]:
    """Sleeps on the open window."""
    key, passes = Key(access.owner, name), body.passes if body else None
    async with access.server.use_stored(key) as session:
        steps = session.sleep_by_pass(passes)
        report, _ = await access.server.work_in_time(key, session, steps)
        return {"report": dataclasses.asdict(report), **describe_status(session.name, session)}


@router.post("/{name}/snapshots")
async def take_snapshot(
    access: CurrentAccess, name: str, body: Annotated[SnapshotRequest, body_of(SnapshotRequest)]
) -> dict[str, Any]:
    """Gives the memory as it is a name."""
    async with _changing(access, name) as session:
        snapshot = await access.server.engine.call(session.snapshot, body.name)
        return _describe_snapshot(snapshot)


@router.delete("/{name}/snapshots/{snapshot:path}")
async def drop_snapshot(access: CurrentAccess, name: str, snapshot: str) -> dict[str, Any]:
    """Forgets a snapshot."""
    async with _changing(access, name) as session:
        await access.server.engine.call(session.drop_snapshot, snapshot)
        is_wiped = await access.server.engine.call(session.is_wiped)
        return {"name": snapshot, "object": "snapshot", "deleted": True, "is_wiped": is_wiped}


@router.post("/{name}/rollback")
async def roll_back(
    access: CurrentAccess, name: str, body: Annotated[RollbackRequest, body_of(RollbackRequest)]
) -> dict[str, Any]:
    """Goes back, or forth, to a snapshot; what has none and came since is gone."""
    async with _changing(access, name) as session:
        await access.server.engine.call(session.rollback, body.snapshot)
        is_wiped = await access.server.engine.call(session.is_wiped)
        return {**describe_status(session.name, session), "is_wiped": is_wiped}


@router.post("/{name}/fork")
async def fork(
    access: CurrentAccess, name: str, body: Annotated[ForkRequest, body_of(ForkRequest)]
) -> dict[str, Any]:
    """A new memory with the past of this one."""
    store = await access.server.sessions.store(access.owner)
    point = name if body.snapshot is None else f"{name}@{body.snapshot}"
    made = make_key(access.owner, body.name).name
    return _describe(access, await access.server.engine.call(store.fork, point, made))


@router.post("/{name}/forget")
async def forget(
    access: CurrentAccess, name: str, body: Annotated[ForgetRequest, body_of(ForgetRequest)]
) -> dict[str, Any]:
    """Forgets sources and places of the ledger, or with dry_run says what that would do."""
    server, key = access.server, Key(access.owner, name)
    async with _changing(access, name) as session:

        def preview() -> Forgetting:
            return session.preview_forgetting(
                sources=body.sources, places=body.places, keep=body.keep
            )

        forgetting = await server.engine.look(preview)
        plan = forgetting.plan
        told = {
            "dropped": plan.dropped,
            "replayed": plan.kept,
            "replayed_tokens": plan.num_tokens,
            "snapshots": forgetting.snapshots,
            "also_in": forgetting.also_in,
            "is_done": not body.dry_run,
        }
        if not body.dry_run:
            await server.work_in_time(key, session, session.forget_by_step(forgetting))
        told["is_wiped"] = await server.engine.call(session.is_wiped)
        return {**told, **describe_status(session.name, session)}


@contextlib.asynccontextmanager
async def _changing(access: Access, name: str) -> AsyncIterator[StoredSession]:
    """A memory that changes in another way than by reading; watchers are told at the end."""
    key = Key(access.owner, name)
    async with access.server.use_stored(key) as session:
        yield session
        access.server.tell_of_change(key, session)


async def _watch(access: Access, key: Key) -> AsyncIterator[str]:
    server = access.server
    with server.feed.watch(key) as events:
        yield comment("watching")
        while True:
            try:
                async with asyncio.timeout(server.config.keep_alive_seconds):
                    happened = await events.get()
            except TimeoutError:
                yield comment("nothing new")
                continue
            if happened is None:
                return
            yield event(happened.data, happened.kind)


def _describe(access: Access, info: SessionInfo) -> dict[str, Any]:
    """A memory as it was after its last turn."""
    is_open = access.server.sessions.peek(Key(access.owner, info.name)) is not None
    described = {"object": "memory", **dataclasses.asdict(info), "is_open": is_open}
    window = access.server.talker.sleep.window
    snapshots = [_describe_snapshot(snapshot) for snapshot in info.snapshots]
    return {**described, "window": window, "snapshots": snapshots}


def _describe_snapshot(snapshot: Snapshot) -> dict[str, Any]:
    point = dataclasses.asdict(snapshot.point)
    counters = ("num_entries", "tokens_seen", "num_sleeps", "window_fill")
    return {
        "name": snapshot.name,
        "time": snapshot.time,
        **{counter: point[counter] for counter in counters},
    }
