"""Bodies: bounded before they are parsed, parsed elsewhere, and each fault named as it was sent."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from serving_app import Make, chat, run, serve
from slowwave.serving import dependencies
from slowwave.serving.dependencies import (
    AT_ONCE,
    MOST_DEPTH,
    MOST_DIGITS,
    MOST_VALUES,
    parse,
    require_bounds,
)
from slowwave.serving.errors import ApiError
from slowwave.serving.requests import (
    MOST_STOP,
    ChatRequest,
    CompletionRequest,
    ForgetRequest,
    ReadRequest,
    SleepRequest,
)

CHAT = "/v1/chat/completions"
PARTS = [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "data:,"}}]


def find_fault(kind: Any, body: Any) -> tuple[int, str, str | None]:
    """Status, sentence and field of what is answered to a body."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises((ApiError, ValueError)) as caught:
        parse(content, kind)
    error = caught.value
    return (
        (error.status_code, error.detail, error.param)
        if isinstance(error, ApiError)
        else (
            400,
            str(error),
            None,
        )
    )


# Bounds.


@st.composite
def values(draw: st.DrawFn) -> Any:
    leaves = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text()
    return draw(
        st.recursive(
            leaves,
            lambda item: st.lists(item, max_size=4) | st.dictionaries(st.text(), item, max_size=4),
        )
    )


def measure(value: Any) -> tuple[int, int]:
    """Commas and opening brackets outside of strings, and the depth."""
    if isinstance(value, dict | list):
        items = list(value.values()) if isinstance(value, dict) else value
        inner = [measure(item) for item in items]
        count = 1 + max(0, len(items) - 1) + sum(each[0] for each in inner)
        return count, 1 + max((each[1] for each in inner), default=0)
    return 0, 0


@given(value=values(), piece=st.integers(1, 30), ascii=st.booleans())
def test_bounds_are_those_of_the_values(value: Any, piece: int, ascii: bool) -> None:
    """Whatever is in strings, and wherever a text is cut into pieces."""
    text = json.dumps([value], ensure_ascii=ascii).encode("utf-8", "surrogatepass")
    count, depth = measure([value])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dependencies, "SLICE_BYTES", piece)
        patch.setattr(dependencies, "MOST_VALUES", count)
        patch.setattr(dependencies, "MOST_DEPTH", depth)
        require_bounds(text)
        patch.setattr(dependencies, "MOST_VALUES", count - 1)
        with pytest.raises(ValueError, match=r"more than \d+ values"):
            require_bounds(text)
        patch.setattr(dependencies, "MOST_VALUES", count)
        patch.setattr(dependencies, "MOST_DEPTH", depth - 1)
        with pytest.raises(ValueError, match="nests more than"):
            require_bounds(text)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{" + b'"k":1,' * MOST_VALUES + b'"k":1}', "the body has more than 32768 values"),
        (b'{"places":[' + b"1," * 10**6 + b"1]}", "the body has more than 32768 values"),
        (b"[" * 10**6, "the body has more than 32768 values"),
        (b'{"a":' + b"[" * MOST_DEPTH + b"]" * MOST_DEPTH + b"}", "the body nests more than 32"),
        (b'{"seed":' + b"1" * (MOST_DIGITS + 1) + b"}", "the body has a number of more than 100"),
        (b'{"seed":1e' + b"0" * 10**6 + b"1}", "the body has a number of more than 100 digits"),
        (b"]" * 4_000_000, "the body is no valid JSON"),
        (b'"' * 4_000_000, "the body is no valid JSON"),
        (b"1 " * 2_000_000, "the body is no valid JSON"),
        ('{"a":"\u2222,[[["}'.encode("utf-16"), "the body is no valid JSON"),
        (b'{"a": "\xff"}', "the body is no valid JSON"),
    ],
)
def test_what_is_too_much(body: bytes, sentence: str) -> None:
    assert find_fault(ChatRequest, body)[1].startswith(sentence)


def test_what_may_be_is_taken() -> None:
    """As many messages as may be, each with a name and a part; escapes; a mark before the text."""
    part = {"type": "text", "text": '\\"[{' * 9}
    one = {"role": "user", "name": "ann", "content": [part]}
    body = json.dumps({"model": "tiny", "messages": [one] * 4096}).encode()
    assert len(parse(b"\xef\xbb\xbf" + body, ChatRequest).messages) == 4096


@pytest.mark.parametrize(
    "body",
    [
        "{" + ",".join(f'"k{i}":1' for i in range(330_000)) + "}",
        "{" + ",".join(f'"k{i}":1' for i in range(MOST_VALUES)) + "}",
        '{"messages":[' + ",".join(["1"] * 1_900_000) + "]}",
        '{"messages":[' + ",".join(["1"] * (MOST_VALUES - 2)) + "]}",
        '{"messages":[{"content":[' + ",".join(["1"] * (MOST_VALUES - 5)) + "]}]}",
        '{"model":"tiny","messages":[{"role":"user","content":"' + "\\\\" * 1_900_000 + '"}]}',
    ],
)
def test_no_body_takes_long(body: str) -> None:
    """It was seconds, for every wrong value was described before one was told."""
    began = time.thread_time()
    for kind in (ChatRequest, ForgetRequest):
        try:
            parse(body.encode(), kind)
        except ValueError:
            pass
        except ApiError as error:
            assert len(error.detail) < 600
    assert time.thread_time() - began < 1


def test_large_bodies_are_parsed_elsewhere(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    names = list[str]()

    def parse_noting(*arguments: Any) -> Any:
        names.append(threading.current_thread().name)
        return parse(*arguments)

    monkeypatch.setattr(dependencies, "parse", parse_noting)

    async def scenario() -> None:
        async with serve(make()) as client:
            for source in ("", "Hi" * AT_ONCE):
                body = {"text": "Hi", "source": source}
                assert (await client.post("/v1/memories/ann/read", json=body)).status_code == 422

    run(scenario())
    assert names == [threading.current_thread().name, "parser_0"]


# Fields.


@pytest.mark.parametrize(
    ("kind", "body", "status", "sentence", "param"),
    [
        (
            ChatRequest,
            {"model": "tiny", "messages": [{"role": "user", "content": PARTS}]},
            400,
            "messages.0.content.1 is of type 'image_url', and only 'text' can be read; leave it "
            "out",
            "messages.0.content.1",
        ),
        (
            ChatRequest,
            {"model": "tiny", "messages": [{"role": "user", "content": [{"type": "text"}]}]},
            422,
            "messages.0.content.0.text is missing; give it",
            "messages.0.content.0.text",
        ),
        (
            ChatRequest,
            {"model": "tiny", "messages": [{"role": "user", "content": 5}]},
            400,
            "messages.0.content is neither a text nor a list of parts; use a text",
            "messages.0.content",
        ),
        (
            ChatRequest,
            {"model": "tiny", "messages": ["hi"]},
            422,
            "messages.0 is 'hi': use an object",
            "messages.0",
        ),
        (
            ChatRequest,
            chat("hi", stop=["a"] * 17),
            422,
            "stop has 17 items; use 16 or fewer",
            "stop",
        ),
        (ChatRequest, chat("hi", stop=["a", 1]), 422, "stop.1 is 1: use a text", "stop.1"),
        (
            ChatRequest,
            chat("hi", stop="a" * (MOST_STOP + 1)),
            422,
            "stop.0 is a str: String should have at most 1024 characters",
            "stop.0",
        ),
        (
            CompletionRequest,
            {"model": "tiny", "prompt": ["a", "b"]},
            422,
            "prompt has 2 items; use 1 or fewer",
            "prompt",
        ),
        (
            CompletionRequest,
            {"model": "tiny", "prompt": [1, 2]},
            422,
            "prompt.0 is 1: use a text",
            "prompt.0",
        ),
        (
            ChatRequest,
            chat("hi", tools=[{}]),
            400,
            "tools is not supported here; leave it out, or use []",
            "tools",
        ),
        (ChatRequest, chat("hi", best=1), 400, "best is not known here; leave it out", "best"),
        (ForgetRequest, {"places": [1, "x"]}, 422, None, "places.1"),
        (
            ForgetRequest,
            {"places": [1] * 20_000},
            422,
            "places has 20000 items; use 16384 or fewer",
            "places",
        ),
        (SleepRequest, [], 422, "the body is a list: use an object", None),
        (SleepRequest, None, 422, "the body is None: use an object", None),
        (ReadRequest, {"text": None}, 422, "text is None: use a text", "text"),
    ],
)
def test_faults_are_named_as_they_were_sent(
    kind: Any, body: Any, status: int, sentence: str | None, param: str | None
) -> None:
    found = find_fault(kind, body)
    assert found == (status, sentence or found[1], param)


@pytest.mark.parametrize("kind", [ChatRequest, CompletionRequest, ForgetRequest, SleepRequest])
def test_every_optional_field_may_be_null(kind: Any) -> None:
    known = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "prompt": "hi"}
    needed = {name: known[name] for name, field in kind.model_fields.items() if field.is_required()}
    optional = {name: None for name in kind.model_fields if name not in needed}
    given = kind.model_validate(needed | optional)
    assert optional
    assert given == kind.model_validate(needed)


def test_null_within_is_as_if_left_out() -> None:
    body = chat("hi", stream_options={"include_usage": None})
    body["messages"][0] |= {"name": None}
    body["messages"] += [{"role": "assistant", "content": None}, {"role": "user", "content": "a"}]
    request = ChatRequest.model_validate(body)
    assert not request.include_usage
    assert [message.read(None).text for message in request.messages] == ["hi", "", "a"]


# Content types.


@pytest.mark.parametrize(
    ("kind", "status", "sentence"),
    [
        (None, 415, "the body has no content type; send Content-Type: application/json"),
        ("text/plain", 415, "the body's content type is 'text/plain'; send Content-Type: app"),
        ("application/json; charset=utf-8", 200, ""),
        ("application/vnd.api+json", 200, ""),
    ],
)
def test_content_types(make: Make, kind: str | None, status: int, sentence: str) -> None:
    answer = post(make(), CHAT, json.dumps(chat("Hi")).encode(), kind)
    assert answer.status_code == status
    if sentence:
        assert answer.json()["error"]["message"].startswith(sentence)


def test_a_body_that_must_be_there(make: Make) -> None:
    answer = post(make(), CHAT, b"", None)
    assert answer.status_code == 422
    assert answer.json()["error"]["message"] == "the body is missing; give it"


def test_a_body_that_need_not_be_there(make: Make) -> None:
    answer = post(make(), "/v1/memories/ann/sleep", b"", None)
    assert answer.json()["error"]["message"] == "no session 'ann'; there are none"


def post(app: FastAPI, path: str, content: bytes, kind: str | None) -> Any:
    async def scenario() -> Any:
        async with serve(app) as client:
            headers = {} if kind is None else {"Content-Type": kind}
            return await client.post(path, content=content, headers=headers)

    return run(scenario())


def test_a_client_that_leaves_amid_its_body_is_no_failure(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        app = make()
        async with app.router.lifespan_context(app):
            scope = {
                "type": "http",
                "method": "POST",
                "path": CHAT,
                "query_string": b"",
                "headers": [(b"content-type", b"application/json")],
            }

            async def receive() -> Any:
                return {"type": "http.disconnect"}

            async def send(_: Any) -> None:
                raise AssertionError("nobody is there")

            await app(scope, receive, send)

    caplog.set_level("INFO", "slowwave.serving")
    run(scenario())
    (record,) = caplog.records
    assert f"POST {CHAT} 499" in record.message
