"""Clients that can send no field of ours, and those that send fields which are not served."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from serving_app import Make, chat, listen, run, serve
from slowwave import cli
from slowwave.memory.talker import Talker
from slowwave.serving.access import ApiKeys, _digest

CHAT = "/v1/chat/completions"


@contextlib.contextmanager
def listen_to(make: Make, **options: Any) -> Iterator[Callable[..., openai.OpenAI]]:
    """Makes official clients of a server, by their base URL and key."""
    with listen(make(**options)) as address, contextlib.ExitStack() as stack:

        def connect(base: str = "/v1", key: str = "none") -> openai.OpenAI:
            client = openai.OpenAI(base_url=address + base, api_key=key, max_retries=0)
            return stack.enter_context(client)

        yield connect


def list_models(client: openai.OpenAI) -> list[str]:
    return [model.id for model in client.models.list()]


def ask(app: Any, *requests: tuple[str, dict[str, Any]]) -> list[Any]:
    """The answers to one request after the other."""

    async def scenario() -> list[Any]:
        async with serve(app) as client:
            return [await client.post(path, json=body) for path, body in requests]

    return run(scenario())


@pytest.mark.parametrize(
    ("base", "model"), [("/v1", "tiny@ann"), ("/v1/memories/ann/v1", "tiny")], ids=["model", "base"]
)
def test_the_official_client_names_a_memory_without_fields_of_ours(
    make: Make, base: str, model: str
) -> None:
    with listen_to(make) as connect:
        ours, client = connect(), connect(base)
        asked: Any = {"messages": [{"role": "user", "content": "Hi."}], "max_tokens": 3}
        first = client.chat.completions.create(model=model, **asked)
        stream = list(client.chat.completions.create(model=model, stream=True, **asked))
        again = client.completions.create(model=model, prompt="Once", max_tokens=3)
        last = ours.chat.completions.create(model="tiny", extra_body={"memory": "ann"}, **asked)
        for chunk in (first, stream[-1], again, last):
            memory: Any = chunk.memory  # pyright: ignore[reportAttributeAccessIssue]
            assert memory["name"] == "ann"
        seen = [each.memory["tokens_seen"] for each in (first, stream[-1], again, last)]  # pyright: ignore
        assert seen == sorted(set(seen)), "all of them are one memory"
        assert {first.model, again.model, *(chunk.model for chunk in stream)} == {model}
        assert client.models.retrieve(model).id == model


def test_models_are_the_model_alone_and_with_each_memory(make: Make) -> None:
    with listen_to(make) as connect:
        client = connect()
        assert list_models(client) == ["tiny"]
        for name in ("bob", "ann"):
            client.completions.create(model=f"tiny@{name}", prompt="Once", max_tokens=1)
        assert list_models(client) == ["tiny", "tiny@ann", "tiny@bob"]
        assert list_models(connect("/v1/memories/ann/v1")) == ["tiny"]
        with pytest.raises(openai.NotFoundError, match="model 'gpt' is not here"):
            client.models.retrieve("gpt")


def test_only_own_memories_are_among_the_models(make: Make) -> None:
    keys = ApiKeys({_digest(owner): owner for owner in ("one", "two")})
    with listen_to(make, keys=keys) as connect:
        one, two = connect(key="one"), connect(key="two")
        one.completions.create(model="tiny@ann", prompt="Once", max_tokens=1)
        assert list_models(one) == ["tiny", "tiny@ann"]
        assert list_models(two) == ["tiny"]


@pytest.mark.parametrize(
    ("path", "fields", "named"),
    [
        (CHAT, {"model": "tiny@bob", "memory": "ann"}, "the model's name has 'bob', memory has 'a"),
        ("/v1/memories/bob/v1/completions", {"memory": "ann"}, "memory has 'ann', the address has"),
        ("/v1/memories/bob/v1/chat/completions", {"model": "tiny@ann"}, "the address has 'bob'"),
    ],
)
def test_two_memories_are_one_too_many(
    make: Make, path: str, fields: dict[str, Any], named: str
) -> None:
    body = {**chat("Hi"), **fields}
    if path.endswith("v1/completions"):
        body = {"model": "tiny", "prompt": "Hi", **fields}
    (response,) = ask(make(), (path, body))
    error = response.json()["error"]
    assert response.status_code == 400
    assert error["param"] == "memory"
    assert error["message"].startswith("two memories are named: ")
    assert named in error["message"]
    assert error["message"].endswith("; use one")


def test_the_same_memory_may_be_named_thrice(make: Make) -> None:
    body = chat("Hi", model="tiny@ann", memory="ann")
    (response,) = ask(make(), ("/v1/memories/ann" + CHAT, body))
    assert response.json()["memory"]["name"] == "ann"


@pytest.mark.parametrize("model", ["tiny@", "tiny@a/b", "tiny@a@b", "tiny@ ann"])
def test_an_unfit_memory_in_a_model_s_name_is_refused(make: Make, model: str) -> None:
    (response,) = ask(make(), (CHAT, chat("Hi", model=model)))
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith("memory name ")


UNSERVED: dict[str, Any] = {
    "tools": [{"type": "function"}],
    "response_format": {"type": "json_object"},
    "logprobs": True,
    "n": 2,
    "num_ctx": 4096,
}


@pytest.mark.parametrize("stream", [False, True])
def test_a_lenient_server_leaves_out_what_it_cannot_serve_and_says_so(
    make: Make, stream: bool
) -> None:
    plain, unserved = ask(
        make(lenient=True),
        (CHAT, chat("Hi", stream=stream)),
        (CHAT, chat("Hi", stream=stream, **UNSERVED)),
    )
    assert plain.status_code == unserved.status_code == 200
    assert "warning" not in plain.headers
    assert unserved.headers["warning"] == (
        '299 slowwave "left out, since it is not served here: n, logprobs, response_format, tools, '
        'num_ctx"'
    )
    if not stream:
        assert unserved.json()["choices"] == plain.json()["choices"]


@pytest.mark.parametrize("options", [[], ["--lenient"]])
def test_a_server_is_lenient_where_it_was_started_so(
    monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    asked = dict[str, Any]()
    monkeypatch.setattr("slowwave.serving.run.serve", lambda model, **given: asked.update(given))
    cli.main(["serve", "checkpoints/talk", *options])
    assert asked["lenient"] == bool(options)


@pytest.mark.parametrize("name", UNSERVED)
def test_others_are_refused_unless_the_server_is_lenient(make: Make, name: str) -> None:
    (response,) = ask(make(), (CHAT, chat("Hi", **{name: UNSERVED[name]})))
    assert response.status_code in (400, 422)
    assert name in response.json()["error"]["message"]


def test_a_lenient_server_bears_any_name_and_any_number_of_fields(make: Make) -> None:
    names = ['x"\r\nSet-Cookie: a=b', "ключ", "", "x" * 4000, *(f"field{i}" for i in range(500))]
    (response,) = ask(make(lenient=True), (CHAT, chat("Hi", **dict.fromkeys(names, 1))))
    assert response.status_code == 200
    warning = response.headers["warning"]
    assert "x???Set-Cookie??a?b, ????, ," in warning
    assert warning.endswith(', field11 and 488 more"')
    assert "set-cookie" not in response.headers


def test_a_lenient_server_refuses_what_is_wrong_as_others_do(make: Make) -> None:
    """What is ours is never guessed, nor is a part of what was said left out."""
    picture = [{"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}]
    told, wrong, forget = ask(
        make(lenient=True),
        (CHAT, {**chat("Hi"), "messages": [{"role": "user", "content": picture}]}),
        (CHAT, chat("Hi", temperature="warm")),
        ("/v1/memories/ann/forget", {"source": "ann"}),
    )
    assert "only 'text' can be read" in told.json()["error"]["message"]
    assert wrong.json()["error"]["message"].startswith("temperature ")
    assert "source is not known here" in forget.json()["error"]["message"]


UNREAD: dict[str, Any] = {
    "tool_calls": [{"id": "1", "type": "function"}],
    "function_call": {"name": "f"},
    "audio": {"id": "1"},
    "images": ["abc"],
}


@pytest.mark.parametrize("name", UNREAD)
def test_nothing_of_a_message_is_left_out_without_a_word(make: Make, name: str) -> None:
    said = {"role": "assistant", "content": None, name: UNREAD[name]}
    body = {**chat("Hi"), "messages": [said, {"role": "user", "content": "Hi"}]}
    (refused,) = ask(make(), (CHAT, body))
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == f"messages.0.{name}"
    (answered,) = ask(make(lenient=True), (CHAT, body))
    assert answered.status_code == 200
    assert f"messages.{name}" in answered.headers["warning"]


def test_what_clients_send_back_of_a_reply_is_taken(make: Make, talker: Talker) -> None:
    reply = {"role": "assistant", "content": None, "refusal": "I will not.", "audio": None}
    reply = {**reply, "annotations": [], "tool_calls": [], "function_call": None}
    body = {**chat("Hi", memory="ann"), "messages": [reply, {"role": "user", "content": "Hi"}]}

    async def scenario() -> list[str]:
        async with serve(make()) as client:
            assert (await client.post(CHAT, json=body)).status_code == 200
            found = (await client.get("/v1/memories/ann/ledger")).json()["data"]
            return [entry["said"] for entry in found[:2]]

    assert run(scenario()) == ["I will not.", "Hi"]


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_limit_is_named_as_it_was_sent(make: Make, field: str) -> None:
    body = {**chat("Hi"), field: 5000}
    if field != "max_tokens":
        del body["max_tokens"]
    (response,) = ask(make(), (CHAT, body))
    assert response.json()["error"]["param"] == field
    assert response.json()["error"]["message"] == f"{field} is 5000; use 4096 or less"
