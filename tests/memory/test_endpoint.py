"""A client of chat endpoints: what it sends, repeats, refuses, and says of each failure."""

from __future__ import annotations

import json
import logging
import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripted_endpoint import Answer, refuse, say, scripted
from slowwave.memory.endpoint import (
    MOST_BYTES,
    Endpoint,
    EndpointError,
    Fault,
    read_retry_after,
)
from slowwave.memory.notes_config import EndpointConfig, read_notes_file

KEY = "sk-0123456789abcdef"
MESSAGES = [{"role": "user", "content": "Hello"}]


def test_a_reply_has_text_calls_and_counts() -> None:
    with scripted([say("Hi", ("look", {"at": 1}), tokens=(11, 5))]) as script:
        reply = script.endpoint(max_tokens=9).complete(MESSAGES, tools=[{"type": "function"}])
        assert (reply.text, reply.tokens_in, reply.tokens_out, reply.tries) == ("Hi", 11, 5, 1)
        assert [(call.name, json.loads(call.arguments)) for call in reply.calls] == [
            ("look", {"at": 1})
        ]
        assert script.paths == ["/v1/chat/completions"]
        assert script.asked == [
            {
                **{"model": "m", "messages": MESSAGES, "max_tokens": 9, "temperature": 0.0},
                "tools": [{"type": "function"}],
            }
        ]


def test_what_is_left_to_the_endpoint_is_not_sent() -> None:
    with scripted([say("Hi")]) as script:
        script.endpoint(max_tokens=None, temperature=None).complete(MESSAGES)
        assert script.asked == [{"model": "m", "messages": MESSAGES}]


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_what_is_turned_away_is_sent_again_later_each_time(status: int) -> None:
    with scripted([refuse(status, "busy")] * 3 + [say("Hi")]) as script:
        reply = script.endpoint(most_wait_seconds=1.5).complete(MESSAGES)
        assert (reply.text, reply.tries) == ("Hi", 4)
        assert script.pauses == [0.5, 1.0, 1.5]


def test_the_endpoint_says_how_long_to_wait_within_bounds() -> None:
    later = ("Retry-After", "3")
    with scripted([refuse(429, "busy", later), say("Hi")]) as script:
        assert script.endpoint().complete(MESSAGES).text == "Hi"
        assert script.pauses == [3.0]
    with scripted([refuse(429, "busy", ("Retry-After", "3600")), say("Hi")]) as script:
        with pytest.raises(EndpointError, match="no more requests for 3600 seconds") as error:
            script.endpoint().complete(MESSAGES)
        assert (error.value.fault, script.pauses, len(script.asked)) == ("limited", [], 1)


def test_repetitions_end() -> None:
    with scripted(rule=lambda _: refuse(503, "down for repairs")) as script:
        with pytest.raises(EndpointError, match="fails \\(503: down for repairs\\)") as error:
            script.endpoint(retries=2).complete(MESSAGES)
        assert (error.value.fault, len(script.asked), len(script.pauses)) == ("failing", 3, 2)


def test_nobody_there_is_tried_again_and_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    pauses = list[float]()
    config = EndpointConfig(url=f"http://127.0.0.1:{port}/v1", retries=1)
    with pytest.raises(EndpointError, match="cannot be reached") as error:
        Endpoint(config, pause=pauses.append).complete(MESSAGES)
    assert (error.value.fault, pauses) == ("down", [0.5])


def test_slow_from_the_start_and_slow_by_drops() -> None:
    dropping = Answer(pieces=(b" ",) * 60, delay=0.05)
    for answer in (Answer(delay=3.0), dropping):
        with scripted([answer]) as script:
            began = time.monotonic()
            with pytest.raises(EndpointError, match=r"no whole reply within 0.3 seconds") as error:
                script.endpoint(seconds=0.3).complete(MESSAGES)
            assert error.value.fault == "slow"
            assert time.monotonic() - began < 2.5
            assert len(script.asked) == 1


@pytest.mark.parametrize(
    ("answer", "fault", "words"),
    [
        (Answer(b"<html>Login</html>", kind="text/html"), "nonsense", "a web page"),
        (Answer(b"\n <!doctype html>"), "nonsense", "a web page"),
        (Answer(b"Hello!"), "nonsense", "no chat completion"),
        (Answer(b"[" * 100_000), "nonsense", "no chat completion"),
        (Answer(b"{}"), "nonsense", "no chat completion"),
        (Answer(b'{"choices": []}'), "nonsense", "no chat completion"),
        (Answer(b'{"choices": [{"message": {"tool_calls": [1]}}]}'), "nonsense", "no chat"),
        (Answer(b'{"choices": [{"message"', is_cut=True), "nonsense", "breaks off|no chat"),
        (Answer(b" " * (MOST_BYTES + 1)), "nonsense", "more than 16 MiB"),
        (refuse(400, "tools are\nunknown"), "refused", r"\(400: tools are unknown\)"),
        (Answer(b"<html>gone", status=404), "refused", r"\(404\)"),
        (
            Answer(status=302, headers=(("Location", "http://127.0.0.1:1/"),)),
            "refused",
            "leads elsewhere",
        ),
    ],
)
def test_other_failures_are_said_and_not_repeated(answer: Answer, fault: Fault, words: str) -> None:
    with scripted([answer, say("Hi")]) as script:
        with pytest.raises(EndpointError, match=words) as error:
            script.endpoint().complete(MESSAGES)
        assert error.value.fault == fault
        assert len(str(error.value).splitlines()) == 1
        assert (len(script.asked), script.pauses) == (1, [])


def test_the_key_is_sent_and_told_to_nobody_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTES_KEY", f" {KEY}\n")
    caplog.set_level(logging.DEBUG)
    replies = [say("Hi"), refuse(401, f"bad {KEY}"), refuse(400, f"bad {KEY}"), refuse(500, KEY)]
    with scripted(replies) as script:
        endpoint = script.endpoint(key_env="NOTES_KEY", retries=0)
        endpoint.complete(MESSAGES)
        told = [repr(endpoint), repr(endpoint.config), json.dumps(endpoint.config.to_dict())]
        for fault in ("key", "refused", "failing"):
            with pytest.raises(EndpointError) as error:
                endpoint.complete(MESSAGES)
            assert error.value.fault == fault
            told += [repr(error.value), str(error.getrepr(style="long", showlocals=False))]
        assert all(each["Authorization"] == f"Bearer {KEY}" for each in script.headers)
        assert KEY not in "".join(told) + caplog.text + repr(vars(endpoint))


@pytest.mark.parametrize("key", ["", "  ", "two words", "a\nb: c", "schl\u00fcssel"])
def test_a_key_that_is_none_is_said_without_it(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("NOTES_KEY", key)
    with scripted([say("Hi")]) as script:
        with pytest.raises(EndpointError, match="NOTES_KEY") as error:
            script.endpoint(key_env="NOTES_KEY").complete(MESSAGES)
        assert error.value.fault == "key"
        assert not key.strip() or key not in str(error.value)
        assert script.asked == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"url": "ftp://a/v1"}, "endpoint.url is 'ftp://a/v1'"),
        ({"url": "127.0.0.1:8000/v1"}, "endpoint.url is"),
        ({"url": "http://a:b/v1"}, "endpoint.url is"),
        ({"url": "http://a/v1\r\nX: y"}, "endpoint.url is"),
        ({"url": f"http://{KEY}@a/v1"}, "endpoint.url has a user"),
        ({"url": f"http://u:{KEY}@a:99999/v1"}, "endpoint.url has a user"),
        ({"url": f"http://a/v1?key={KEY}"}, "endpoint.url has a user, a query"),
        ({"key_env": KEY}, "not the key"),
        ({"seconds": 0}, "endpoint.seconds is 0"),
        ({"most_wait_seconds": float("nan")}, "endpoint.most_wait_seconds is nan"),
        ({"retries": -1}, "endpoint.retries is -1"),
        ({"max_tokens": 0}, "endpoint.max_tokens is 0"),
        ({"temperature": -1}, "endpoint.temperature is -1"),
    ],
)
def test_unfit_settings_are_named(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        EndpointConfig.from_dict({"url": "http://a/v1", **fields})
    assert KEY not in str(error.value)


def test_settings_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.toml"
    path.write_text('[endpoint]\nurl = "http://a/v1"\nmodel = "m"\n[notes]\nlimit = 100\n')
    found = read_notes_file(path)
    assert (found.endpoint.model, found.notes.limit, found.notes.max_steps) == ("m", 100, 10)
    path.write_text("[notes]\nlimit = 0\n")
    with pytest.raises(ValueError, match=r"notes\.toml: "):
        read_notes_file(path)


@settings(deadline=None)
@given(st.text() | st.integers().map(str) | st.floats().map(str))
def test_any_retry_after_is_a_bounded_wait_or_none(value: str) -> None:
    wait = read_retry_after(value)
    assert wait is None or 0 <= wait < float("inf")


def test_retry_after_may_be_a_date() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    wait = read_retry_after(later)
    assert wait is not None
    assert 50 < wait < 61
    assert read_retry_after("Thu, 01 Jan 1970 00:00:00 GMT") == 0
