"""A request and its answer on their way between a client and the upstream."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from slowwave.memory.endpoint import EndpointError
from slowwave.memory.ledger import MODEL, Entry
from slowwave.memory.store import Store
from slowwave.memory.text_session import TextSession
from slowwave.serving.config import ServeConfig
from slowwave.serving.errors import FAULTS, explain, shutting_down, too_late
from slowwave.serving.monitoring import Key
from slowwave.serving.plan import Asked, Plan, plan_from
from slowwave.serving.upstream.call import Call, Head, Reply, StreamReader, read_whole
from slowwave.serving.upstream.prompt import compose
from slowwave.serving.upstream.server import UpstreamServer, see_through

LOG = logging.getLogger("slowwave.serving")

Keep = Callable[[Reply], Awaitable[None]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryRequest(Asked):
    """A request with a memory. fields: its body, without the fields of ours."""

    key: Key
    model: str
    fields: Mapping[str, Any]


class Exchange:
    """Goes on by itself once it is made; nothing but `stop` ends it early.

    path: below the upstream's url. asked: the body, or what is asked with a memory; None of a GET.
    Raises ApiError if there is no place in the queue.
    """

    def __init__(
        self, server: UpstreamServer, path: str, asked: MemoryRequest | bytes | None
    ) -> None:
        self._server, self._path = server, path
        self._head: asyncio.Future[Head] = asyncio.get_running_loop().create_future()
        self._news = asyncio.Queue[bytes | BaseException | None]()
        self._is_kept = False
        self._place = contextlib.ExitStack()
        self._place.enter_context(server.take_place())
        self._place.enter_context(server.ending(self.stop))
        self._task = asyncio.create_task(self._run(asked))
        self._task.add_done_callback(self._end)

    async def head(self) -> Head:
        """The begin of the answer; raises what went wrong before it."""
        return await asyncio.shield(self._head)

    async def parts(self) -> AsyncIterator[bytes]:
        """The rest of the answer as it comes; raises what goes wrong."""
        while (part := await self._news.get()) is not None:
            if isinstance(part, BaseException):
                raise part
            yield part

    def stop(self) -> None:
        """Ends it; a turn whose reply has not ended has not been."""
        self._task.cancel()

    async def _run(self, asked: MemoryRequest | bytes | None) -> None:
        seconds = self._server.config.request_seconds
        try:
            async with asyncio.timeout(seconds):
                if isinstance(asked, MemoryRequest):
                    await self._talk(asked)
                else:
                    await self._relay(asked, None)
        except TimeoutError:
            kept = "the turn was kept" if self._is_kept else "nothing was kept"
            raise too_late(seconds, kept) from None

    def _end(self, task: asyncio.Task[None]) -> None:
        self._place.close()
        error = shutting_down() if task.cancelled() else task.exception()
        if error is not None and explain(error).status_code in FAULTS:
            LOG.error("an exchange failed", exc_info=error)
        if error is not None and not self._head.done():
            self._head.set_exception(error)
            self._head.exception()  # the client may be gone
        self._news.put_nowait(error)

    async def _talk(self, asked: MemoryRequest) -> None:
        server = self._server
        async with server.use(asked.key, create=True) as session:
            store = await server.store(asked.key.owner)
            plan, content = await server.engine.call(_prepare, asked, session, store, server.config)

            async def keep(reply: Reply) -> None:
                async def enter() -> None:
                    await server.engine.call(_enter, session, plan, reply)
                    self._is_kept = True

                await see_through(enter())
                server.note_turn(asked.key, asked.model)

            await self._relay(content, keep)

    async def _relay(self, content: bytes | None, keep: Keep | None) -> None:
        """Sends a request, and hands on the answer; keep: is told a whole reply before its end."""
        call = self._server.call(self._path, content)
        try:
            head = await call.head()
            if head.status != 200:
                await self._pass_refusal(head, call)
            elif head.is_stream:
                await self._pass_stream(head, call, keep)
            else:
                await self._pass_whole(head, call, keep)
        finally:
            call.stop()

    async def _pass_refusal(self, head: Head, call: Call) -> None:
        """An error in OpenAI's form as it came, unless it may quote the key; else in our words."""
        content, endpoint = await _gather(call), self._server.endpoint
        key = endpoint.read_key()
        may_quote = head.status in (401, 403) or (key is not None and key.encode() in content)
        if head.status < 400 or may_quote or not _is_error(content):
            raise endpoint.refusal(head.status, head.retry_after, content)
        self._hand_on(head, content)

    async def _pass_whole(self, head: Head, call: Call, keep: Keep | None) -> None:
        content, endpoint = await _gather(call), self._server.endpoint
        endpoint.require_no_page(head.kind, content)
        try:
            reply = await self._server.engine.compute(read_whole if keep else _read_any, content)
        except ValueError:
            raise endpoint.nonsense("something that is no chat completion in JSON") from None
        if keep is not None and reply is not None:
            await keep(reply)
        self._hand_on(head, content)

    async def _pass_stream(self, head: Head, call: Call, keep: Keep | None) -> None:
        """The turn is kept before the client hears of the end, so that it can rely on it."""
        reader, left = StreamReader(), keep
        self._head.set_result(head)
        async for part in call.parts():
            reader.feed(part)
            if left is not None and reader.is_done and (reply := reader.reply()) is not None:
                await left(reply)
                left = None
            self._news.put_nowait(part)
        if left is None:
            return
        reply = reader.reply()
        if reply is None:
            raise EndpointError(
                "nonsense", f"{self._server.endpoint.config.url}: broke off its reply; ask again"
            )
        await left(reply)

    def _hand_on(self, head: Head, content: bytes) -> None:
        self._head.set_result(head)
        self._news.put_nowait(content)


def _prepare(
    asked: MemoryRequest, session: TextSession, store: Store, config: ServeConfig
) -> tuple[Plan, bytes]:
    """What of a request is new, and the body that goes to the upstream."""
    plan = plan_from(asked, session, session.num_entries)
    last = session.last_turn() if plan.instead else None
    recalled = store.notebook(asked.key.name).recall(None if last is None else last[0])
    messages = compose(
        asked.fields["messages"],
        plan.known,
        recalled,
        window_characters=config.window_characters,
        memory_characters=config.memory_characters,
    )
    return plan, json.dumps({**asked.fields, "messages": messages}, allow_nan=False).encode()


def _enter(session: TextSession, plan: Plan, reply: Reply) -> None:
    """Records a turn."""
    now = time.time()
    told = [
        Entry(
            kind="told",
            time=now,
            source=message.teller,
            text=message.text,
            role=message.role,
            said=message.text,
        )
        for message in plan.new
    ]
    said = Entry(
        kind="reply",
        time=now,
        source=MODEL,
        text=reply.text,
        role="assistant",
        said=reply.text,
        finish=reply.finish,
    )
    session.add_turn([*told, said], instead=plan.instead)


async def _gather(call: Call) -> bytes:
    return b"".join([part async for part in call.parts()])


def _read_any(content: bytes) -> None:
    """Raises ValueError if it is no JSON."""
    try:
        json.loads(content)
    except RecursionError:
        raise ValueError("too deep") from None


def _is_error(content: bytes) -> bool:
    """Whether this is an error in OpenAI's form."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(values, dict) and "error" in values
