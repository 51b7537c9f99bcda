"""A proxy with a memory, before a scripted endpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from scripted_endpoint import Answer, Script, obey, refuse, scripted
from scripted_endpoint import say as complete
from serving_app import listen
from slowwave.memory.notes_config import EndpointConfig, NotesConfig, NotesFile
from slowwave.memory.store import Store
from slowwave.serving.access import read_api_keys
from slowwave.serving.config import ServeConfig
from slowwave.serving.upstream.app import create_proxy

KEY = "sk-very-secret"
PATH = "/v1/chat/completions"
Start = Callable[..., httpx2.Client]


def answer(body: dict[str, Any]) -> Answer:
    """A model that says how many messages it was shown, and can write notes."""
    if len(body["messages"]) == 2 and body["messages"][0]["content"].startswith(
        ("List what", "Below are", "You keep")
    ):
        return obey(body)
    text = f"Reply {sum(each['role'] != 'system' for each in body['messages'])}."
    return stream(text, "[DONE]") if body.get("stream") else complete(text)


def stream(text: str, *ends: str, **fields: Any) -> Answer:
    words = re.findall(r" ?[^ ]+", text)
    events = [{"choices": [{"index": 0, "delta": {"content": word}}]} for word in words]
    events += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}] if ends else []
    pieces = [f"data: {json.dumps(each)}\n\n" for each in events]
    pieces += [f"data: {end}\n\n" for end in ends]
    return Answer(
        kind="text/event-stream", pieces=tuple(each.encode() for each in pieces), **fields
    )


@pytest.fixture
def script() -> Iterator[Script]:
    with scripted(rule=answer) as made:
        yield made


@pytest.fixture
def memories(tmp_path: Path) -> Path:
    return tmp_path / "memories"


@pytest.fixture
def start(script: Script, memories: Path) -> Iterator[Start]:
    """Starts a proxy; returns a client of it."""
    with contextlib.ExitStack() as stack:

        def start(
            url: str = script.url,
            key_env: str = "",
            limits: dict[str, Any] | None = None,
            **more: Any,
        ) -> httpx2.Client:
            settings: dict[str, Any] = {"idle_seconds": 0.0, **(limits or {})}
            config = ServeConfig(**settings)
            app = create_proxy(
                EndpointConfig(url=url, key_env=key_env), memory_dir=memories, config=config, **more
            )
            address = stack.enter_context(listen(app, config))
            return stack.enter_context(httpx2.Client(base_url=address, timeout=120))

        yield start


def chat(*texts: str, **fields: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    return {"model": "m", "messages": messages, **fields}


def ask(client: httpx2.Client, *texts: str, **fields: Any) -> str:
    reply = client.post(PATH, json=chat(*texts, **{"memory": "ann", **fields}))
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["message"]["content"]


def sent(script: Script) -> list[str]:
    """The texts of the last request, without those of the system."""
    messages = script.asked[-1]["messages"]
    return [each["content"] for each in messages if each["role"] != "system"]


def words(memories: Path, name: str = "ann") -> list[str]:
    with Store(memories) as store:
        return [entry.said for entry in store.entries(name)] if name in store.names() else []


def test_a_request_without_a_memory_passes_unchanged(start: Start, script: Script) -> None:
    content = b'{ "model":"m",  "tools": [{"x": 1.50}], "source": "s", "messages":[] }'
    script.answers = [Answer(b' {"any": "json"} ', headers=(("X-Odd", "1"),))]
    client = start()
    reply = client.post(PATH, content=content, headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.content) == (200, b' {"any": "json"} ')
    assert script.headers[0]["Content-Length"] == str(len(content))
    assert (script.asked, script.paths) == ([json.loads(content)], [PATH])
    script.answers = [stream("a b", "[DONE]")]
    reply = client.post(PATH, json={"stream": True})
    assert reply.content == b"".join(stream("a b", "[DONE]").pieces)
    script.answers = [Answer(b'{"data": []}')]
    assert client.get("/v1/models").json() == {"data": []}
    assert script.paths[-1] == "/v1/models"
    assert client.get("/v1/memories").json()["data"] == []


def test_a_memory_has_what_was_said_and_the_model_is_shown_it(
    start: Start, script: Script, memories: Path
) -> None:
    client = start()
    assert ask(client, "a", temperature=0.5, tools=[1], source="ben") == "Reply 1."
    first = chat("a", temperature=0.5, tools=[1])
    assert script.asked == [first]
    assert ask(client, "b") == "Reply 3."
    assert sent(script) == ["a", "Reply 1.", "b"]
    assert ask(client, "b", "Reply 3.", "c") == "Reply 5."  # as clients send all of it again
    assert sent(script) == ["a", "Reply 1.", "b", "Reply 3.", "c"]
    address = "/v1/memories/ann/v1/chat/completions"
    assert client.post(address, json=chat("d")).json()["choices"]
    data = client.get("/v1/memories/ann/ledger").json()["data"]
    assert [each["said"] for each in data][:3] == ["a", "Reply 1.", "b"] and len(data) == 8
    assert [each["source"] for each in data[:3]] == ["ben", "model", "user"]
    assert [each["kind"] for each in data[:2]] == ["told", "reply"]
    assert client.get("/v1/memories/ann/sources").json()["data"][0]["source"] == "ben"
    assert words(memories) == [each["said"] for each in data]


def test_older_turns_are_left_out_beyond_the_window(start: Start, script: Script) -> None:
    client = start(limits={"window_characters": 25})
    for text in ("one", "two", "three"):
        ask(client, text)
    assert sent(script) == ["two", "Reply 3.", "three"]
    ask(client, "x" * 100)
    assert sent(script) == ["x" * 100]


def test_a_repeated_request_takes_the_place_of_the_last_turn(
    start: Start, script: Script, memories: Path
) -> None:
    client = start()
    ask(client, "a")
    ask(client, "b")
    body = chat("b", memory="ann")
    client.post(PATH, json=body, headers={"x-stainless-retry-count": "1"})
    assert sent(script) == ["a", "Reply 1.", "b"]
    assert words(memories) == ["a", "Reply 1.", "b", "Reply 3."]
    ask(client, "a", "Reply 1.", "edited")
    assert words(memories) == ["a", "Reply 1.", "edited", "Reply 3."]


def test_answers_of_tools_are_kept_once(start: Start, script: Script, memories: Path) -> None:
    client = start()
    script.answers = [complete(None, ("look", {}))]
    client.post(PATH, json=chat("q", memory="ann"))
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    result = {"role": "tool", "tool_call_id": "1", "content": "42"}
    messages = [*chat("q")["messages"], call, result]
    reply = client.post(PATH, json={"model": "m", "memory": "ann", "messages": messages})
    assert reply.status_code == 200
    assert script.asked[-1]["messages"] == messages
    assert words(memories) == ["q", "", "42", "Reply 3."]
    ask(client, "next")
    assert sent(script) == ["q", "Reply 3.", "next"]


def test_notes_and_episodes_go_into_the_system_message_until_they_are_forgotten(
    start: Start, script: Script, memories: Path
) -> None:
    client = start(limits={"window_characters": 1})
    ask(client, "I drink tea.", source="first")
    ask(client, "I live in Lima.", source="second")
    slept = client.post("/v1/memories/ann/sleep").json()
    assert (slept["outcome"], slept["why"], len(slept["readings"])) == ("changed", "", 2)
    assert script.asked[-1]["model"] == "m"  # that of the conversation
    shown = client.get("/v1/memories/ann").json()
    assert shown["notes"] == "Ann lives in Lima.\nAnn likes tea."
    assert shown["episodes"][0]["statement"] == "Ann likes tea."
    ask(client, "Hm?")
    system = script.asked[-1]["messages"][0]
    assert system["role"] == "system" and "Ann lives in Lima.\nAnn likes tea." in system["content"]
    assert "first: Ann likes tea." in system["content"] and sent(script) == ["Hm?"]
    other = client.post(PATH, json=chat("Hm?", memory="bob"))
    assert other.status_code == 200 and script.asked[-1] == chat("Hm?")
    preview = {"sources": ["second"], "dry_run": True}
    assert client.post("/v1/memories/ann/forget", json=preview).json()["dropped"][0] == 2
    gone = client.post("/v1/memories/ann/forget", json={"sources": ["second"]}).json()
    assert gone["is_done"] and gone["is_wiped"]
    ask(client, "Hm?")
    told = json.dumps(script.asked[-1])
    assert "Lima" not in told and "Ann likes tea." in told
    assert b"Lima" not in (memories / "catalogue.sqlite").read_bytes()
    unknown = start().post("/v1/memories/ann/sleep")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (409, "no_writer")


def test_notes_are_written_while_idle_by_whom_the_file_names(start: Start, script: Script) -> None:
    with scripted(rule=obey) as writer:
        config = EndpointConfig(url=writer.url, model="writer")
        notes = NotesFile(endpoint=config, notes=NotesConfig(episodes=False, check=False))
        client = start(limits={"idle_seconds": 0.01}, notes=notes)
        ask(client, "I drink tea.")
        while not client.get("/v1/memories/ann").json()["notes"]:
            time.sleep(0.05)
        assert {each["model"] for each in writer.asked} == {"writer"}
        assert len(script.asked) == 1
        count = len(writer.asked)
        time.sleep(1.5)
        assert len(writer.asked) == count  # there was nothing new


def test_a_stream_passes_and_is_kept(start: Start, script: Script, memories: Path) -> None:
    client = start()
    with client.stream("POST", PATH, json=chat("a", memory="ann", stream=True)) as reply:
        assert reply.headers["content-type"] == "text/event-stream"
        assert b"".join(reply.iter_raw()) == b"".join(stream("Reply 1.", "[DONE]").pieces)
    assert words(memories) == ["a", "Reply 1."]
    script.answers = [stream("No mark", '{"choices": []}')]
    client.post(PATH, json=chat("b", memory="ann", stream=True))
    assert words(memories) == ["a", "Reply 1.", "b", "No mark"]


@pytest.mark.parametrize(
    "broken",
    [
        stream("half a"),
        stream("half a", is_cut=True),
        stream("half a", '{"error": {"message": "no"}}', "[DONE]"),
    ],
)
def test_a_stream_that_breaks_off_is_not_kept(
    start: Start, script: Script, memories: Path, broken: Answer
) -> None:
    script.answers = [broken]
    reply = start().post(PATH, json=chat("a", memory="ann", stream=True))
    assert (reply.status_code, "error" in reply.text) == (200, True)
    assert words(memories) == []


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_client_that_hangs_up_leaves_the_ledger_as_it_was(
    start: Start, script: Script, memories: Path, is_stream: bool
) -> None:
    client = start()
    ask(client, "a")
    slow = stream("one two three", "[DONE]", delay=0.5)
    script.answers = [slow if is_stream else Answer(complete("x").content, delay=2)]
    body = chat("b", memory="ann", stream=is_stream)
    hang_up = client.stream("POST", PATH, json=body, timeout=1)
    with contextlib.suppress(httpx2.ReadTimeout), hang_up as reply:
        next(reply.iter_raw())
    assert ask(client, "c") == "Reply 3."  # it does not wait for the rest
    assert words(memories) == ["a", "Reply 1.", "c", "Reply 3."]


def test_clients_that_hang_up_again_and_again_are_turned_away(start: Start, script: Script) -> None:
    """Threads wait for the upstream on behalf of clients that are gone; so many and no more."""
    client = start(limits={"max_queue": 2})
    script.answers = [Answer(complete("x").content, delay=3)] * 3
    statuses: list[int] = []
    for _ in range(3):
        with contextlib.suppress(httpx2.ReadTimeout):
            statuses.append(client.post(PATH, json=chat("b"), timeout=0.5).status_code)
    assert statuses == [429]
    time.sleep(3)
    assert client.post(PATH, json=chat("b")).status_code == 200


def test_clients_of_one_memory_take_turns_and_memories_do_not_mix(
    start: Start, script: Script, memories: Path
) -> None:
    script.rule = lambda body: dataclasses.replace(answer(body), delay=0.2)
    client = start()
    names = ["ann", "bob", "ann", "bob", "ann"]
    threads = [
        threading.Thread(target=ask, args=(client, f"{name} {i}"), kwargs={"memory": name})
        for i, name in enumerate(names)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, count in (("ann", 3), ("bob", 2)):
        said = words(memories, name)
        assert [text.split()[0] for text in said] == [name, "Reply"] * count
        assert said[1::2] == [f"Reply {2 * i + 1}." for i in range(count)]
    for asked in script.asked:
        users = {each["content"].split()[0] for each in asked["messages"][::2]}
        assert len(users) == 1


@pytest.mark.parametrize(
    ("failure", "status", "sentence"),
    [
        (refuse(429, "slow down", ("Retry-After", "7")), 429, "slow down"),
        (refuse(400, "no such model"), 400, "no such model"),
        (refuse(503, "overloaded"), 503, "overloaded"),
        (refuse(401, f"wrong key {KEY}"), 401, "does not accept the key"),
        (refuse(400, f"wrong key {KEY}"), 400, "wrong key ***"),
        (Answer(b"<html>down</html>", 502, "text/html"), 502, "fails (502)"),
        (Answer(b"<html>hello</html>", 200, "text/html"), 502, "a web page"),
        (Answer(b"", 302, headers=(("Location", "http://127.0.0.1:1/"),)), 502, "leads elsewhere"),
        (Answer(b"{}"), 502, "no chat completion"),
        (Answer(b"{", is_cut=True), 502, "breaks off"),
    ],
)
@pytest.mark.parametrize("name", ["ann", None])
def test_failures_of_the_upstream_reach_the_client(
    start: Start,
    script: Script,
    memories: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failure: Answer,
    status: int,
    sentence: str,
    name: str | None,
) -> None:
    if name is None and failure.content == b"{}":
        return  # any JSON passes
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("UPSTREAM_KEY", KEY)
    script.answers = [failure]
    client = start(key_env="UPSTREAM_KEY")
    reply = client.post(
        PATH, json=chat("a", memory=name), headers={"Authorization": "Bearer client's"}
    )
    assert reply.status_code == status
    assert sentence in reply.json()["error"]["message"]
    assert reply.headers.get("retry-after") == dict(failure.headers).get("Retry-After")
    assert script.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in reply.text + caplog.text
    assert words(memories) == []
    assert all(KEY.encode() not in each.read_bytes() for each in memories.rglob("*.*"))
    assert ask(client, "a") == "Reply 1."


def test_an_upstream_that_is_not_there_or_slow_or_lacks_its_key(
    start: Start, script: Script, memories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = chat("a", memory="ann")
    monkeypatch.delenv("UPSTREAM_KEY", raising=False)
    reply = start(key_env="UPSTREAM_KEY").post(PATH, json=body)
    assert reply.status_code == 500
    assert "UPSTREAM_KEY" in reply.json()["error"]["message"]
    down = start(url="http://127.0.0.1:1/v1").post(PATH, json=body)
    assert (down.status_code, down.json()["error"]["code"]) == (502, "upstream_down")
    script.answers = [Answer(complete("late").content, delay=3)]
    late = start(limits={"request_seconds": 1.0}).post(PATH, json=body)
    assert (late.status_code, late.json()["error"]["type"]) == (504, "server_error")
    assert words(memories) == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"memory": 5}, "memory"),
        ({"memory": "a/b"}, None),
        ({"source": ""}, "source"),
        ({"n": 2}, "n"),
        ({"model": None}, "model"),
        ({"messages": []}, "messages"),
    ],
)
def test_requests_that_cannot_be_kept_are_rejected(
    start: Start, script: Script, fields: dict[str, Any], param: str | None
) -> None:
    reply = start().post(PATH, json=chat("a", **{"memory": "ann", **fields}))
    assert reply.status_code in (400, 422)
    assert reply.json()["error"]["param"] == param
    assert script.asked == []


def test_owners_of_keys_have_memories_of_their_own(
    start: Start, script: Script, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text("ann one\nbob two\n")
    client = start(keys=read_api_keys(tmp_path / "keys"))
    assert client.post(PATH, json=chat("a")).status_code == 401
    for key, count in (("one", 1), ("one", 3), ("two", 1)):
        client.headers["Authorization"] = f"Bearer {key}"
        assert ask(client, "a") == f"Reply {count}."
    assert all("Authorization" not in each for each in script.headers)
    assert client.delete("/v1/memories/ann").json()["deleted"]
    assert client.get("/v1/memories/ann").status_code == 404
    assert client.post("/v1/memories/ann/sleep").status_code == 404
