"""Queues are short, and nobody waits or is waited for too long."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from serving_app import Make, chat, run, serve
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker
from slowwave.memory.turn import Event, Progress
from slowwave.runtime.config import Sampling
from slowwave.serving.config import ServeConfig
from slowwave.serving.engine import Engine, Job
from slowwave.serving.errors import ApiError
from slowwave.serving.history import Message
from slowwave.serving.monitoring import Key
from slowwave.serving.plan import TurnRequest
from slowwave.serving.turns import Turn
from slowwave.sleep.consolidate import consolidate_by_pass

CHAT = "/v1/chat/completions"
HI = [Message("user", "Hi")]


def test_a_full_queue(make: Make) -> None:
    async def scenario() -> tuple[Any, Any]:
        app = make(config=ServeConfig(max_queue=1))
        async with serve(app) as client:
            with app.state.server.take_place():
                refused = await client.post(CHAT, json=chat("Hi"))
            return refused, await client.post(CHAT, json=chat("Hi"))

    refused, accepted = run(scenario())
    assert (refused.status_code, accepted.status_code) == (429, 200)
    assert refused.headers["Retry-After"] == "1"
    assert refused.json()["error"]["code"] == "queue_full"


@pytest.mark.parametrize("is_late", [False, True])
def test_who_waits_no_more_leaves_the_queue(make: Make, tmp_path: Path, is_late: bool) -> None:
    """The memory is busy; whoever hung up, or waited too long, keeps no others out."""
    seconds = 0.2 if is_late else 600.0

    async def scenario() -> None:
        app = make(config=ServeConfig(max_queue=1, request_seconds=seconds))
        key = Key("", "ann")
        async with serve(app) as client:
            async with app.state.server.sessions.use(key, create=True) as ann:
                asked = TurnRequest(key=key, messages=HI, max_tokens=9, sampling=Sampling())
                turn = Turn(app.state.server, asked)
                refused = await client.post(CHAT, json=chat("Hi", memory="bob"))
                assert refused.status_code == 429
                if is_late:
                    await asyncio.sleep(2 * seconds)
                else:
                    turn.stop()
                    await asyncio.sleep(0.1)
                served = await client.post(CHAT, json=chat("Hi", memory="bob"))
                assert served.status_code == 200
                assert turn._task.done()
            assert ann.status().num_entries == 0

    run(scenario())
    with Store(tmp_path / "memories") as store:
        assert [(each.name, each.num_entries) for each in store.sessions()] == [
            ("ann", 0),
            ("bob", 2),
        ]


@pytest.mark.parametrize("ticks", range(4))
def test_who_leaves_just_as_a_piece_comes_has_left(make: Make, ticks: int) -> None:
    async def scenario() -> bool:
        app, key = make(), Key("", "ann")
        async with serve(app), app.state.server.sessions.use(key, create=True):
            asked = TurnRequest(key=key, messages=HI, max_tokens=9, sampling=Sampling())
            turn = Turn(app.state.server, asked)

            async def follow() -> None:
                async for _ in turn.pieces(60):
                    await asyncio.sleep(0)

            following = asyncio.create_task(follow())
            await asyncio.sleep(0.01)  # until it waits for a piece
            turn._news.put_nowait("piece")
            for _ in range(ticks):
                await asyncio.sleep(0)
            following.cancel()
            await asyncio.wait({following}, timeout=1)
            turn.stop()
            return following.cancelled()

    assert run(scenario())


def test_who_leaves_while_a_memory_is_opened_leaves_it_to_others(
    make: Make, monkeypatch: Any
) -> None:
    begun, may_end, open_session = threading.Event(), threading.Event(), Store.open
    opened = list[str]()

    def open_slowly(store: Store, name: str, *arguments: Any, **options: Any) -> Any:
        opened.append(name)
        begun.set()
        may_end.wait(10)
        return open_session(store, name, *arguments, **options)

    monkeypatch.setattr(Store, "open", open_slowly)

    async def scenario() -> None:
        app = make()
        async with serve(app) as client:
            key = Key("", "ann")
            asked = TurnRequest(key=key, messages=HI, max_tokens=9, sampling=Sampling())
            turn = Turn(app.state.server, asked)
            await asyncio.to_thread(begun.wait, 10)
            turn.stop()
            next_one = asyncio.create_task(client.post(CHAT, json=chat("Hi", memory="ann")))
            await asyncio.sleep(0.1)
            may_end.set()
            assert (await next_one).status_code == 200
            session = app.state.server.sessions.peek(key)
            assert session.status().num_entries == 2

    run(scenario())
    assert opened == ["ann"]  # twice at once it cannot be


@pytest.mark.parametrize("stream", [False, True])
def test_a_turn_that_takes_too_long_is_kept_as_far_as_it_is(
    make: Make, tmp_path: Path, stream: bool
) -> None:
    async def scenario() -> Any:
        app = make(config=ServeConfig(request_seconds=0.5))
        async with serve(app) as client:
            body = {"model": "tiny", "memory": "ann", "prompt": "Hi", "max_tokens": 4000}
            late = await client.post("/v1/completions", json={**body, "stream": stream})
            again = await client.post(CHAT, json=chat("Hi", memory="ann"))
            assert again.status_code == 200
            return late

    late = run(scenario())
    assert "more than 0.5 seconds have passed; the reply so far is kept" in late.text
    assert late.status_code == (200 if stream else 504)
    with Store(tmp_path / "memories") as store:
        kinds = [entry.kind for entry in store.entries("ann")]
        reply = store.entries("ann")[1]
    assert kinds == ["told", "reply", "told", "reply"]
    assert 3 < len(reply.tokens) < 4001


@pytest.mark.parametrize(
    ("is_late", "message"), [(True, "nothing was read"), (False, "shutting down")]
)
def test_a_turn_that_ends_in_the_sleep_of_its_first_token_has_not_been(
    make: Make, tmp_path: Path, monkeypatch: Any, is_late: bool, message: str
) -> None:
    """Whoever is told so says it again."""
    tell = Engine._tell

    def stop_at_the_sleep(engine: Engine, job: Job, event: Event) -> None:
        tell(engine, job, event)
        job.is_stopped = isinstance(event, Progress) and event.next == "sleep"

    async def scenario() -> str:
        app = make()
        async with serve(app):
            prompt = [Message("user", "Hi there")]  # with its marks a token less than the window
            asked = TurnRequest(
                key=Key("", "ann"), messages=prompt, max_tokens=9, sampling=Sampling()
            )
            turn = Turn(app.state.server, asked)
            turn._is_late = is_late
            with pytest.raises(ApiError) as error:
                async for piece in turn.pieces(5):
                    assert not piece
            assert b"slowwave_tokens_read_total 0.0" in app.state.server.metrics.text()
            return error.value.detail

    monkeypatch.setattr(Engine, "_tell", stop_at_the_sleep)
    assert message in run(scenario())
    with Store(tmp_path / "memories") as store:
        assert store.entries("ann") == []


def test_a_sleep_that_takes_too_long_has_not_been(
    make: Make, talker: Talker, tmp_path: Path
) -> None:
    with Store(tmp_path / "memories") as store, store.open("ann", talker, create=True) as ann:
        ann.read("Hello")

    async def scenario() -> Any:
        app = make(config=ServeConfig(request_seconds=0.4))
        async with serve(app) as client:
            late = await client.post("/v1/memories/ann/sleep", json={"passes": 64})
            assert (await client.post("/v1/memories/ann/sleep", json={})).status_code == 200
            return late

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("slowwave.memory.transaction.consolidate_by_pass", slow_passes)
        late = run(scenario())
    assert late.status_code == 504
    assert "more than 0.4 seconds have passed; nothing was done" in late.text
    with Store(tmp_path / "memories") as store:
        assert [slept.report.passes for slept in store.sleeps("ann")] == [3]


def slow_passes(*arguments: Any, passes: int, **options: Any) -> Any:
    """Passes that take their time."""
    if passes > 3:
        for _ in range(passes):
            time.sleep(0.02)
            yield arguments[1]
    return (yield from consolidate_by_pass(*arguments, passes=passes, **options))


def test_a_turn_that_waits_too_long_has_not_been(make: Make, tmp_path: Path) -> None:
    async def scenario() -> Any:
        app = make(config=ServeConfig(request_seconds=0.2))
        key = Key("", "ann")
        async with serve(app) as client, app.state.server.use_stored(key, create=True):
            return await client.post(CHAT, json=chat("Hi", memory="ann"))

    late = run(scenario())
    assert late.status_code == 504
    assert "more than 0.2 seconds have passed; nothing was read" in late.text
    with Store(tmp_path / "memories") as store:
        assert store.entries("ann") == []
