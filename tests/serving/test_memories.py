"""Memories can be looked into, led back, forked, made to forget, and watched."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import httpx2
import pytest

from serving_app import Make, chat, listen, run, serve
from slowwave.memory.config import Canary, GateConfig
from slowwave.memory.replay import replay
from slowwave.memory.store import Store
from slowwave.memory.stored_session import StoredSession
from slowwave.memory.talker import Talker
from slowwave.memory.turn import Progress
from slowwave.serving import memories
from slowwave.serving.config import ServeConfig
from slowwave.serving.engine import Engine
from slowwave.serving.responses import FileAnswer

ANN = "/v1/memories/ann"


async def call(client: httpx2.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    """POST, or GET without a body."""
    response = await (client.post(path, json=body) if body else client.get(path))
    assert response.status_code == 200, response.text
    return response.json()


async def live(client: httpx2.AsyncClient) -> None:
    """A memory with two sources, and a sleep."""
    await call(client, f"{ANN}/read", text="Ann lives in Lima.", source="notes")
    await call(client, "/v1/chat/completions", **chat("Where?", memory="ann"))
    await call(client, f"{ANN}/read", text="Bob.", source="letters")


def test_a_memory_is_described(make: Make, talker: Talker) -> None:
    async def scenario() -> tuple[dict[str, Any], ...]:
        async with serve(make()) as client:
            await live(client)
            return (
                await call(client, "/v1/memories"),
                await call(client, ANN),
                await call(client, f"{ANN}/sleeps"),
                await call(client, f"{ANN}/sleeps?last=2"),
            )

    listed, shown, sleeps, last = run(scenario())
    assert last["data"] == sleeps["data"][-2:] != sleeps["data"]
    alone = talker.session()
    alone.read("Ann lives in Lima.", source="notes")
    alone.generate("Where?", max_new_tokens=9)
    alone.read("Bob.", source="letters")
    status = alone.status()
    (first,) = listed["data"]
    assert {**first, "sleeps": shown["sleeps"]} == shown
    assert (shown["name"], shown["is_open"], shown["snapshots"]) == ("ann", True, [])
    for counter in ("tokens_seen", "num_sleeps", "window_fill", "window", "num_entries"):
        assert shown[counter] == getattr(status, counter)
    assert listed["disk"]["heads"] > shown["nbytes"] > status.nbytes  # and that of a turn ago
    reports = [report.changes for report in alone.sleeps]
    assert [tuple(report["changes"]) for report in shown["sleeps"]] == reports
    assert [(slept["start"], slept["stop"]) for slept in sleeps["data"]] == [
        (12 * i, 12 * i + 12) for i in range(len(reports))
    ]


def test_the_ledger_says_where_everything_is(make: Make) -> None:
    async def scenario() -> tuple[dict[str, Any], dict[str, Any]]:
        async with serve(make()) as client:
            await live(client)
            ledger = await call(client, f"{ANN}/ledger")
            return ledger, await call(client, f"{ANN}/ledger?start=1&limit=2")

    ledger, middle = run(scenario())
    assert middle["data"] == ledger["data"][1:3]
    notes, told, reply, letters = ledger["data"]
    assert (notes["text"], notes["source"], notes["kind"]) == (
        "Ann lives in Lima.",
        "notes",
        "told",
    )
    assert (notes["place"], notes["num_tokens"], notes["sleeps"]) == (0, 18, [1, 2])
    assert (told["sleeps"], told["in_window"], reply["kind"]) == ([2, 3], False, "reply")
    assert (letters["place"], letters["in_window"]) == (3, True)


def test_asked_sleeps(make: Make, talker: Talker) -> None:
    async def scenario() -> list[dict[str, Any]]:
        async with serve(make()) as client:
            await call(client, f"{ANN}/read", text="Ann lives in Lima.")
            slept = [await call(client, f"{ANN}/sleep", passes=2)]
            await call(client, f"{ANN}/read", text="Bob.")
            response = await client.post(f"{ANN}/sleep")
            return [*slept, response.json()]

    slept = run(scenario())
    alone = talker.session()
    alone.read("Ann lives in Lima.")
    alone.sleep(passes=2)
    alone.read("Bob.")
    alone.sleep()
    assert [one["report"]["passes"] for one in slept] == [2, 3]
    assert [tuple(one["report"]["changes"]) for one in slept] == [
        alone.sleeps[1].changes,
        alone.sleeps[2].changes,
    ]
    assert [one["status"]["window_fill"] for one in slept] == [0, 0]


def test_snapshots_forks_and_ways_back(make: Make) -> None:
    async def scenario() -> None:
        async with serve(make()) as client:
            await live(client)
            before = (await call(client, ANN))["tokens_seen"]
            assert (await call(client, f"{ANN}/snapshots", name="s"))["tokens_seen"] == before
            await call(client, f"{ANN}/read", text="More.")
            assert (await call(client, f"{ANN}/fork", name="bob"))["tokens_seen"] == before + 5
            forked = await call(client, f"{ANN}/fork", name="eve", snapshot="s")
            assert forked["tokens_seen"] == before
            back = await call(client, f"{ANN}/rollback", snapshot="s")
            assert back["status"]["tokens_seen"] == before
            (snapshot,) = (await call(client, ANN))["snapshots"]
            assert (snapshot["name"], snapshot["tokens_seen"]) == ("s", before)
            assert (await client.delete(f"{ANN}/snapshots/s")).status_code == 200
            assert (await call(client, ANN))["snapshots"] == []
            assert (await client.delete(ANN)).json()["deleted"]
            names = [memory["name"] for memory in (await call(client, "/v1/memories"))["data"]]
            assert names == ["bob", "eve"]
            assert (await call(client, f"{ANN}/read", text="Anew."))["status"]["tokens_seen"] == 5

    run(scenario())


def test_forgetting(make: Make, talker: Talker, tmp_path: Path) -> None:
    async def scenario() -> tuple[dict[str, Any], dict[str, Any]]:
        async with serve(make()) as client:
            await live(client)
            before = await call(client, ANN)
            shown = await call(client, f"{ANN}/forget", sources=["notes"], dry_run=True)
            assert (await call(client, ANN)) == before
            return shown, await call(client, f"{ANN}/forget", sources=["notes"])

    shown, done = run(scenario())
    for answer in (shown, done):
        assert (answer["dropped"], answer["replayed"]) == ([0, 2], [1, 3])
        assert answer["replayed_tokens"] == len("> Where?\nBob.")
    assert (shown["is_done"], done["is_done"]) == (False, True)
    assert done["is_wiped"]
    with Store(tmp_path / "memories") as store, store.open("ann", talker) as kept:
        assert [entry.text for entry in kept.ledger()] == ["> Where?\n", "Bob."]
        again = replay(lambda: talker.session(), kept.ledger())
        assert kept.state.fast_weights[0].equal(again.state.fast_weights[0])
        assert kept.state.tokens_seen == done["status"]["tokens_seen"] == 13


def test_an_exported_memory_can_be_imported(make: Make, tmp_path: Path) -> None:
    async def scenario() -> bytes:
        async with serve(make()) as client:
            await live(client)
            return (await client.get(f"{ANN}/export")).content

    file = tmp_path / "file"
    file.write_bytes(run(scenario()))
    with Store(tmp_path / "other") as other, Store(tmp_path / "memories") as store:
        assert other.import_session(file).tokens_seen == store.info("ann").tokens_seen
        assert other.entries("ann") == store.entries("ann")


def test_an_export_has_no_name_on_disk(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in the folder of the memories, is its owner's alone, and gone after any kill."""
    seen = list[tuple[int, int, int]]()

    class Noting(FileAnswer):
        def __init__(self, engine: Engine, file: BinaryIO, name: str) -> None:
            found = os.fstat(file.fileno())
            seen.append((found.st_dev, found.st_nlink, stat.S_IMODE(found.st_mode)))
            super().__init__(engine, file, name)

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("it goes elsewhere")

    async def scenario() -> tuple[Any, set[Path], set[Path]]:
        async with serve(make()) as client:
            await live(client)
            before = {*tmp_path.rglob("*")}
            answer = await client.get(f"{ANN}/export")
            return answer, before, {*tmp_path.rglob("*")}

    monkeypatch.setattr(memories, "FileAnswer", Noting)
    monkeypatch.setattr(tempfile, "gettempdir", fail)
    answer, before, after = run(scenario())
    assert seen == [(tmp_path.stat().st_dev, 0, 0o600)]
    assert before == after
    assert int(answer.headers["Content-Length"]) == len(answer.content) > 1000
    assert answer.headers["Content-Disposition"] == "attachment; filename*=utf-8''ann.memory"


def test_an_export_that_fails_is_told_and_closed(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.BytesIO):
        def write(self, _: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    file = Full()

    async def scenario() -> Any:
        async with serve(make()) as client:
            await live(client)
            monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: file)
            return await client.get(f"{ANN}/export")

    assert run(scenario()).status_code == 507
    assert file.closed


def test_a_snapshot_of_any_name_can_be_forgotten(make: Make) -> None:
    async def scenario() -> Any:
        async with serve(make()) as client:
            await live(client)
            await call(client, f"{ANN}/snapshots", name="a?b c")
            gone = await client.delete(f"{ANN}/snapshots/a%3Fb%20c")
            assert gone.status_code == 200, gone.text
            return (await call(client, ANN))["snapshots"]

    assert run(scenario()) == []


def test_who_watches_too_late_hears_of_the_end(make: Make) -> None:
    async def scenario() -> str:
        app = make()
        async with serve(app) as client:
            await live(client)
            app.state.server.stop()
            async with asyncio.timeout(5):
                return (await client.get(f"{ANN}/events")).text

    assert run(scenario()) == ": watching\n\n"


def test_memories_sleep_when_idle(make: Make, tmp_path: Path) -> None:
    async def scenario() -> dict[str, Any]:
        async with serve(make(config=ServeConfig(idle_seconds=0.01))) as client:
            await call(client, f"{ANN}/read", text="Bob.")
            while not (shown := await call(client, ANN))["num_sleeps"]:
                await asyncio.sleep(0.05)
            metrics = (await client.get("/metrics")).text
            assert 'slowwave_sleeps_total{trigger="idle"} 1.0' in metrics
            return shown

    shown = run(scenario())
    assert shown["window_fill"] == 0
    assert [report["trigger"] for report in shown["sleeps"]] == ["idle"]


def test_an_idle_sleep_that_a_gate_rejects_is_not_tried_again(
    make: Make, talker: Talker, tmp_path: Path
) -> None:
    canary = Canary(question="Who?", answer="Ann.")
    gate = GateConfig(canaries=(canary,), max_canary_nll_rise=-1000.0)
    with Store(tmp_path / "memories") as store:
        store.open("ann", talker, create=True, gate=gate).close()

    async def scenario() -> list[dict[str, Any]]:
        app = make(config=ServeConfig(idle_seconds=0.01))
        async with serve(app) as client:
            await call(client, f"{ANN}/read", text="Bob.")
            while (shown := await call(client, ANN))["num_entries"] < 2:
                await asyncio.sleep(0.05)
            for _ in range(3):
                await app.state.server.sessions.sleep_idle(lambda *_: None)
            return [shown, await call(client, ANN)]

    async def restart() -> dict[str, Any]:
        app = make(config=ServeConfig(idle_seconds=0.01))
        async with serve(app) as client:
            await call(client, f"{ANN}/snapshots", name="monday")  # which opens it
            for _ in range(3):
                await asyncio.sleep(0.02)
                await app.state.server.sessions.sleep_idle(lambda *_: None)
            return await call(client, ANN)

    first, later = run(scenario())
    assert run(restart())["num_entries"] == 2
    assert first["sleeps"][0]["verdict"]["outcome"] == "rejected"
    assert (first["window_fill"], first["num_sleeps"]) == (4, 0)
    assert later["num_entries"] == 2


def test_whoever_comes_ends_an_idle_sleep(make: Make) -> None:
    """It waits for nothing, and the sleep that was begun has not been."""

    async def scenario() -> dict[str, Any]:
        app = make(config=ServeConfig(idle_seconds=0.01, workers=1))
        async with serve(app) as client:
            await call(client, f"{ANN}/read", text="Bob.")
            blocker = app.state.server.engine.start(endless())
            while not (place := app.state.server.sessions._slots.get(("", "ann"))).idle_sleep:
                await asyncio.sleep(0.01)
            assert place.lock.locked()
            answer = await call(client, f"{ANN}/read", text="Eve.")
            app.state.server.engine.stop(blocker)
            return answer

    assert run(scenario())["status"]["tokens_seen"] == 8


def test_a_server_that_stops_begins_no_more_idle_sleeps(make: Make, tmp_path: Path) -> None:
    names = [f"ann{i}" for i in range(4)]

    async def scenario() -> None:
        app = make(config=ServeConfig(idle_seconds=0.01, workers=1))
        async with serve(app) as client:
            server = app.state.server
            blocker = server.engine.start(endless())
            for name in names:
                await call(client, f"/v1/memories/{name}/read", text="Bob.")
            places = server.sessions._slots
            while not any(place.idle_sleep for place in places.values()):
                await asyncio.sleep(0.01)
            server.stop()
            assert blocker.is_stopped

    run(scenario())
    with Store(tmp_path / "memories") as store:
        assert [store.info(name).num_sleeps for name in names] == [0] * 4


def test_an_idle_sleep_that_fails_leaves_the_others_theirs(
    make: Make, tmp_path: Path, monkeypatch: Any
) -> None:
    sleep_by_pass = StoredSession.sleep_by_pass

    def fail(session: StoredSession, *arguments: Any, **options: Any) -> Any:
        if session.name == "ann":
            raise RuntimeError("a broken model")
        return sleep_by_pass(session, *arguments, **options)

    monkeypatch.setattr(StoredSession, "sleep_by_pass", fail)

    async def scenario() -> None:
        async with serve(make(config=ServeConfig(idle_seconds=0.01))) as client:
            for name in ("ann", "bob"):
                await call(client, f"/v1/memories/{name}/read", text="Bob.")
            async with asyncio.timeout(10):
                while not (await call(client, "/v1/memories/bob"))["num_sleeps"]:
                    await asyncio.sleep(0.05)

    run(scenario())


def endless() -> Any:
    """A turn that leaves no time to those in the background."""
    while True:
        yield Progress("draw")


def test_events_tell_what_happens(make: Make) -> None:
    app = make()
    with listen(app) as address, httpx2.Client(base_url=address) as client:
        assert client.post(f"{ANN}/read", json={"text": "Hi."}).status_code == 200
        with client.stream("GET", f"{ANN}/events") as events:
            lines = events.iter_lines()
            assert next(lines) == ": watching"
            body = chat("Where does Ann live?", memory="ann")
            assert client.post("/v1/chat/completions", json=body).status_code == 200
            assert client.post(f"{ANN}/snapshots", json={"name": "s"}).status_code == 200
            seen: list[tuple[str, Any]] = []
            while not seen or seen[-1][0] != "change":
                if (line := next(lines)).startswith("event: "):
                    data = json.loads(next(lines).removeprefix("data: "))
                    seen.append((line.removeprefix("event: "), data))
    windows = [data for kind, data in seen if kind == "window"]
    assert windows[-1]["doing"] == "rest"
    tokens = seen[-1][1]["status"]["tokens_seen"]
    assert (windows[-1]["tokens_seen"], windows[-1]["window_fill"]) == (tokens, tokens % 12)
    sleeps = [data["number"] for kind, data in seen if kind == "sleep"]
    assert sleeps == list(range(1, tokens // 12 + 1))
    assert len(sleeps) > 1
