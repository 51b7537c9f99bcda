"""What cannot be is told by a status and one sentence, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from serving_app import Make, chat, run, serve
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker
from slowwave.serving.access import read_api_keys
from slowwave.serving.config import ServeConfig
from slowwave.storage import memory_file

CHAT = "/v1/chat/completions"


def refuse(
    app: Any, method: str, path: str, body: Any = None, key: str | None = None
) -> tuple[int, dict[str, Any], Any]:
    """Status, error and headers of the answer."""

    async def scenario() -> Any:
        async with serve(app, key) as client:
            content = body if isinstance(body, bytes) else json.dumps(body)
            headers = {"Content-Type": "application/json"}
            return await client.request(method, path, content=content, headers=headers)

    response = run(scenario())
    assert set(response.json()) == {"error"}
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    return response.status_code, response.json()["error"], response.headers


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        (CHAT, {"model": "tiny"}, 422, "messages is missing; give it"),
        (CHAT, b"{", 400, "the body is no valid JSON; mend it"),
        (CHAT, chat("Hi", n=2), 400, "n is not supported here; leave it out, or use 1"),
        (CHAT, chat("Hi", tools=[{}]), 400, "tools is not supported here; leave it out, or use []"),
        (CHAT, chat("Hi", logprobs=True), 400, "logprobs is not supported here"),
        (CHAT, chat("Hi", best=True), 400, "best is not known here; leave it out"),
        (CHAT, chat("Hi", temperature=-1), 422, "temperature is -1: Input should be greater"),
        (CHAT, chat("Hi", top_p=0), 422, "top_p is 0: Input should be greater than 0"),
        (CHAT, chat("Hi", max_tokens=5000), 400, "max_tokens is 5000; use 4096 or less"),
        (CHAT, chat("Hi", stop=[""]), 400, "stop holds an empty text"),
        (CHAT, chat("Hi", "Hello"), 400, "the last of messages is by the assistant; end with"),
        (CHAT, chat("Hi", "Hm", "\n"), 400, "messages.2.content is empty; say something"),
        (CHAT, chat(*["Hi"] * 4097), 422, "messages has 4097 items; use 4096 or fewer"),
        (CHAT, chat("Hi", model="gpt"), 404, "model 'gpt' is not here; use 'tiny'"),
        (CHAT, chat("Hi", memory="a/b"), 400, "memory name 'a/b' is unfit; use 1 to 128"),
        (CHAT, chat("Hi", memory="a@b"), 400, "memory name 'a@b' is unfit; use 1 to 128"),
        (CHAT, chat("Hi", memory="../x"), 400, "memory name '../x' is unfit; use 1 to 128"),
        (CHAT, chat("Hi", memory=".x"), 400, "session name '.x' is unfit; use 1 to 128"),
        (
            CHAT,
            chat("x" * 101, memory="ann"),
            400,
            "the prompt has more than 100 new tokens; send less",
        ),
        (CHAT, chat("\ud800"), 400, "the text is no text: it has half of a surrogate pair"),
        ("/v1/completions", {"model": "tiny", "prompt": ""}, 400, "prompt is empty"),
        ("/v1/completions", {"model": "tiny", "prompt": ["a", "b"]}, 422, "prompt"),
        (
            "/v1/memories/ann/read",
            {"text": "x" * 101},
            400,
            "text has more than 100 new tokens; send less",
        ),
        ("/v1/memories/ann/read", {"text": ""}, 422, "text is '': String should have at least 1"),
        ("/v1/memories/ann/sleep", {}, 404, "no session 'ann'; there are none"),
        ("/v1/memories/ann/sleep", {"passes": 0}, 422, "passes is 0: Input should be greater"),
        ("/v1/memories/ann/snapshots", {"name": "s"}, 404, "no session 'ann'"),
        ("/v1/memories/ann/fork", {"name": "bob"}, 404, "no session 'ann'"),
        ("/v1/memories/ann/forget", {"sources": ["notes"]}, 404, "no session 'ann'"),
        ("/v1/nothing", {}, 404, "Not Found"),
    ],
)
def test_mistakes(
    make: Make, tmp_path: Path, path: str, body: Any, status: int, message: str
) -> None:
    app = make(config=ServeConfig(max_prompt_tokens=100))
    found, error, _ = refuse(app, "POST", path, body)
    assert (found, error["message"][: len(message)]) == (status, message)
    assert error["type"] == ("not_found_error" if status == 404 else "invalid_request_error")
    with Store(tmp_path / "memories") as store:
        assert all(info.num_entries == 0 for info in store.sessions())


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", "/v1/memories/ann/snapshots", {"name": "s"}, 409, "snapshot 's' is there already"),
        ("POST", "/v1/memories/ann/fork", {"name": "ann"}, 409, "session 'ann' is there already"),
        ("POST", "/v1/memories/ann/rollback", {"snapshot": "t"}, 404, "no snapshot 't'; there are"),
        ("DELETE", "/v1/memories/ann/snapshots/t", {}, 404, "no snapshot 't'; there are s"),
        ("POST", "/v1/memories/ann/forget", {}, 400, "there is nothing to forget; name sources or"),
        ("POST", "/v1/memories/ann/forget", {"places": [7]}, 400, "place 7 is not in the ledger"),
        ("POST", "/v1/memories/ann/sleep", {}, 400, "the window is empty"),
        ("DELETE", "/v1/memories/bob", None, 404, "no session 'bob'; there are ann"),
    ],
)
def test_mistakes_with_a_memory(
    make: Make,
    talker: Talker,
    tmp_path: Path,
    method: str,
    path: str,
    body: Any,
    status: int,
    message: str,
) -> None:
    with Store(tmp_path / "memories") as store, store.open("ann", talker, create=True) as ann:
        ann.read("x" * 12)
        ann.snapshot("s")
        before = ann.status()
    found, error, _ = refuse(make(), method, path, body)
    assert (found, error["message"][: len(message)]) == (status, message)
    with Store(tmp_path / "memories") as store, store.open("ann", talker) as ann:
        assert ann.status() == before


def test_a_memory_that_is_open_elsewhere(make: Make, talker: Talker, tmp_path: Path) -> None:
    with Store(tmp_path / "memories") as store, store.open("ann", talker, create=True):
        status, error, _ = refuse(make(), "POST", CHAT, chat("Hi", memory="ann"))
    assert (status, error["code"]) == (409, "memory_in_use")
    assert "is open in process" in error["message"]


def test_a_lost_state_is_no_fault_of_the_client(make: Make, talker: Talker, tmp_path: Path) -> None:
    with Store(tmp_path / "memories") as store, store.open("ann", talker, create=True) as ann:
        ann.read("Hello")
    for path in (tmp_path / "memories" / "states").iterdir():
        path.write_bytes(b"nothing")
    status, error, _ = refuse(make(), "POST", CHAT, chat("Hi", memory="ann"))
    assert (status, error["code"]) == (500, "memory_damaged")


def test_another_model(make: Make, talker: Talker, tmp_path: Path) -> None:
    other = talker._replace(sleep=talker.sleep.from_dict({"window": 8}))
    with Store(tmp_path / "memories") as store, store.open("ann", other, create=True) as ann:
        ann.read("Hello")
    status, error, _ = refuse(make(), "POST", CHAT, chat("Hi", memory="ann"))
    assert (status, error["code"]) == (409, "other_model")


@pytest.mark.parametrize("announced", [True, False])
def test_bodies_that_are_too_large(make: Make, announced: bool) -> None:
    body = json.dumps(chat("x" * 10_000_000)).encode()

    async def scenario() -> Any:
        async def cut() -> AsyncIterator[bytes]:
            for start in range(0, len(body), 2**16):
                yield body[start : start + 2**16]

        async with serve(make()) as client:
            headers = {"Content-Type": "application/json"}
            return await client.post(CHAT, content=body if announced else cut(), headers=headers)

    response = run(scenario())
    assert response.status_code == 413
    assert "4194304 are allowed; send less" in response.json()["error"]["message"]


def test_a_full_disk(make: Make, talker: Talker, tmp_path: Path, monkeypatch: Any) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def scenario() -> tuple[Any, Any]:
        async with serve(make()) as client:
            assert (await client.post(CHAT, json=chat("Hi", memory="ann"))).status_code == 200
            with monkeypatch.context() as patch:
                patch.setattr(memory_file, "write_atomically", fail)
                refused = await client.post(CHAT, json=chat("No", memory="ann"))
            return refused, await client.post(CHAT, json=chat("Yes", memory="ann"))

    refused, accepted = run(scenario())
    assert refused.status_code == 507
    assert "the turn is not recorded and the session is as before" in refused.text
    assert accepted.status_code == 200
    with Store(tmp_path / "memories") as store:
        told = [entry.text for entry in store.entries("ann") if entry.kind == "told"]
    assert told == ["> Hi\n", "> Yes\n"]


def test_a_store_that_opens_slowly_holds_up_no_other_owner(
    make: Make, keys: Any, monkeypatch: Any
) -> None:
    begun, may_end = threading.Event(), threading.Event()

    class Slow(Store):
        def __init__(self, directory: Path) -> None:
            if directory.name == "bob":
                begun.set()
                may_end.wait(10)
            super().__init__(directory)

    monkeypatch.setattr("slowwave.serving.open_sessions.Store", Slow)

    async def scenario() -> None:
        app = make(keys=keys)
        async with serve(app, "key-of-ann") as client:
            assert (await client.get("/v1/memories")).status_code == 200
            slow = asyncio.create_task(app.state.server.sessions.store("bob"))
            await asyncio.to_thread(begun.wait, 10)
            try:
                async with asyncio.timeout(5):
                    assert (await client.get("/v1/memories")).status_code == 200
            finally:
                may_end.set()
                await slow

    run(scenario())


def test_a_read_only_disk(
    make: Make, talker: Talker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(tmp_path / "memories") as store:
        store.open("ann", talker, create=True).close()
    monkeypatch.setattr(os, "access", lambda *_: False)

    async def scenario() -> Any:
        async with serve(make()) as client:
            return (await client.get("/v1/memories")).json()

    assert [memory["name"] for memory in run(scenario())["data"]] == ["ann"]
    for method, path, body in (
        ("DELETE", "/v1/memories/ann", None),
        ("POST", CHAT, chat("Hi", memory="ann")),
        ("POST", "/v1/memories", {"name": "bob"}),
    ):
        status, error, _ = refuse(make(), method, path, body)
        assert (status, error["code"]) == (507, "disk_read_only")
        assert error["message"] == "read-only; nothing can be changed here"


# Keys.


@pytest.fixture
def keys(tmp_path: Path) -> Any:
    file = tmp_path / "keys"
    file.write_text("# who may ask\nann key-of-ann\n\nbob key-of-bob\nbob another\n")
    return read_api_keys(file)


@pytest.mark.parametrize(
    ("key", "code"), [(None, "missing_api_key"), ("key-of-an", "invalid_api_key")]
)
@pytest.mark.parametrize("path", ["/v1/memories", "/v1/models", "/metrics", "/v1/nothing"])
def test_wrong_keys(make: Make, keys: Any, key: str | None, code: str, path: str) -> None:
    status, error, _ = refuse(make(keys=keys), "GET", path, key=key)
    assert (status, error["type"], error["code"]) == (401, "authentication_error", code)


def test_every_owner_sees_its_own_memories(make: Make, keys: Any, tmp_path: Path) -> None:
    async def scenario() -> None:
        app = make(keys=keys)
        async with serve(app, "key-of-ann") as client:
            assert (await client.post(CHAT, json=chat("Hi", memory="m"))).status_code == 200
            assert (await client.get("/v1/memories/m")).status_code == 200
            for key in ("key-of-bob", "another"):
                client.headers["Authorization"] = f"Bearer {key}"
                assert (await client.get("/v1/memories")).json()["data"] == []
                for method, path in (
                    ("GET", "m"),
                    ("GET", "m/ledger"),
                    ("GET", "m/sleeps"),
                    ("GET", "m/events"),
                    ("GET", "m/export"),
                    ("POST", "m/sleep"),
                    ("DELETE", "m"),
                ):
                    response = await client.request(method, f"/v1/memories/{path}")
                    assert response.status_code == 404, path
                    assert response.json()["error"]["message"] == "no session 'm'; there are none"
            client.headers.pop("Authorization")
            assert (await client.get("/health")).json()["status"] == "ok"

    run(scenario())
    assert sorted(path.name for path in (tmp_path / "memories").iterdir()) == ["ann", "bob"]
    assert (tmp_path / "memories").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "has no keys; write lines 'owner key'"),
        ("ann", "line 1 is not 'owner key'"),
        ("../ann secret", "line 1 is not 'owner key'"),
        ("ann two words", "line 1 is not 'owner key'"),
        ("ann same\nbob same", "a key is there twice"),
        ("ann one\nAnn two", "owners 'Ann' and 'ann' differ in case alone"),
        ("states secret", "owner 'states' is what a store calls a file of its own"),
        ("catalogue.sqlite-wal secret", "owner 'catalogue.sqlite-wal' is what a store calls"),
    ],
)
def test_unfit_files_of_keys(tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "keys").write_text(lines)
    with pytest.raises(ValueError, match=message) as refusal:
        read_api_keys(tmp_path / "keys")
    assert "secret" not in str(refusal.value)


def test_a_file_of_keys_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b"ann \xff\n")
    with pytest.raises(ValueError, match="keys: is no text; name a file of lines 'owner key'"):
        read_api_keys(tmp_path / "keys")


@pytest.mark.parametrize(("mode", "num_warnings"), [(0o600, 0), (0o640, 0), (0o644, 1)])
def test_keys_that_anybody_can_read_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, num_warnings: int
) -> None:
    (tmp_path / "keys").write_text("ann secret")
    (tmp_path / "keys").chmod(mode)
    read_api_keys(tmp_path / "keys")
    assert (
        caplog.text.count("anybody on this machine can read the keys; chmod 600 it") == num_warnings
    )
    assert "secret" not in caplog.text


# Pages of others.


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8000", "Origin": "http://localhost:8000"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example:8000"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_pages_of_others_cannot_ask(make: Make, headers: dict[str, str], status: int) -> None:
    async def scenario() -> int:
        async with serve(make(hosts=["127.0.0.1", "localhost", "::1"])) as client:
            local = {"Host": "127.0.0.1:8000", **headers}
            return (await client.get("/v1/memories", headers=local)).status_code

    assert run(scenario()) == status


ELSEWHERE = {"Origin": "https://app.example"}
PREFLIGHT = {
    **ELSEWHERE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
}


def ask_from_elsewhere(app: Any) -> tuple[Any, Any]:
    """What a browser is answered before a page's request, and to that."""

    async def scenario() -> tuple[Any, Any]:
        async with serve(app) as client:
            before = await client.options(CHAT, headers=PREFLIGHT)
            key = {"Authorization": "Bearer key-of-ann"}
            return before, await client.post(CHAT, json=chat("Hi"), headers=ELSEWHERE | key)

    return run(scenario())


@pytest.mark.parametrize("origins", [("https://app.example", "http://b.example"), ("*",)])
def test_pages_that_are_named_may_ask_with_a_key(
    make: Make, keys: Any, origins: tuple[str, ...]
) -> None:
    before, asked = ask_from_elsewhere(make(keys=keys, config=ServeConfig(origins=origins)))
    assert (before.status_code, asked.status_code) == (200, 200)
    for answer in (before, asked):
        assert answer.headers["Access-Control-Allow-Origin"] in ("https://app.example", "*")
    allowed = before.headers["Access-Control-Allow-Headers"]
    assert allowed == PREFLIGHT["Access-Control-Request-Headers"]
    assert before.headers["Access-Control-Allow-Methods"] == "GET, POST, DELETE"
    assert asked.headers["Access-Control-Expose-Headers"] == "Retry-After, Warning"


def test_errors_reach_pages_that_are_named(make: Make, keys: Any) -> None:
    app = make(keys=keys, config=ServeConfig(origins=("https://app.example",)))

    async def scenario() -> Any:
        async with serve(app) as client:
            return await client.post(CHAT, json=chat("Hi"), headers=ELSEWHERE)

    answer = run(scenario())
    assert answer.status_code == 401
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"


@pytest.mark.parametrize("origins", [(), ("http://app.example", "https://app.example:8443")])
def test_other_pages_are_told_how_they_may_ask(
    make: Make, keys: Any, origins: tuple[str, ...]
) -> None:
    before, asked = ask_from_elsewhere(make(keys=keys, config=ServeConfig(origins=origins)))
    assert before.status_code == 403
    assert before.json()["error"]["message"] == (
        "origin 'https://app.example' is no page that may ask here; start the server with "
        "--limits.origins https://app.example"
    )
    for answer in (before, asked):
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_without_keys_a_page_from_elsewhere_is_told_what_it_takes(make: Make) -> None:
    for answer in ask_from_elsewhere(make()):
        assert answer.status_code == 403
        assert answer.json()["error"]["message"] == (
            "origin 'https://app.example' is another page; start the server with --api-keys FILE "
            "and --limits.origins https://app.example, and it may ask with a key"
        )
    with pytest.raises(
        ValueError, match=r"serve\.origins names pages that may ask with a key, and"
    ):
        make(config=ServeConfig(origins=("*",)))


@pytest.mark.parametrize("origin", ["app.example", "https://app.example/", "https://a b", ""])
def test_unfit_origins(origin: str) -> None:
    with pytest.raises(
        ValueError, match=r"serve\.origins has '.*'; write scheme, host and perhaps"
    ):
        ServeConfig(origins=(origin,))


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"])
def test_no_page_runs_scripts_from_elsewhere(make: Make, path: str) -> None:
    status, error, _ = refuse(make(), "GET", path)
    assert (status, error["message"]) == (404, "Not Found; docs/server.md says what there is")


def test_long_values_are_not_told_back(make: Make, caplog: Any) -> None:
    """Neither to the client nor to the log."""
    long = "x" * 100_000
    with caplog.at_level(logging.INFO, "slowwave.serving"):
        for path, body in (
            (CHAT, chat("Hi", model=long)),
            (CHAT, chat("Hi", memory=long)),
            (CHAT, {**chat("Hi"), long: 1}),
            (f"/v1/memories/{long[:9000]}/read", {"text": "Hi"}),
        ):
            _, error, _ = refuse(make(), "POST", path, body)
            assert len(json.dumps(error)) < 1000
    assert max(len(record.getMessage()) for record in caplog.records) < 500


# The log.


def test_the_log_tells_of_a_disk_that_fails(
    make: Make, caplog: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error", str(tmp_path / "catalogue.sqlite"))

    monkeypatch.setattr(Store, "info", fail)
    status, error, _ = refuse(make(), "GET", "/v1/memories/ann")
    assert (status, error["message"]) == (500, "the disk fails: Input/output error")
    assert "catalogue.sqlite" in caplog.text


def test_the_log_tells_nothing_that_was_said(make: Make, caplog: Any) -> None:
    async def scenario() -> None:
        async with serve(make()) as client:
            await client.post(CHAT, json=chat("a secret", memory="ann"))
            await client.post(CHAT, json=chat("a secret", temperature="hot"))
            await client.get("/v1/memories?secret=1")
            await asyncio.sleep(0)

    with caplog.at_level(logging.INFO, "slowwave.serving"):
        run(scenario())
    lines = [record.getMessage() for record in caplog.records if record.name == "slowwave.serving"]
    assert [line.split(" ")[:3] for line in lines] == [
        ["POST", CHAT, "200"],
        ["POST", CHAT, "422"],
        ["GET", "/v1/memories", "200"],
    ]
    assert "told=11 remembered=0 said=9 sleeps=1" in lines[0]
    assert "secret" not in caplog.text
