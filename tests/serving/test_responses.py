"""Long answers are written an item at a time, elsewhere."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_app import run
from slowwave.serving.engine import Engine
from slowwave.serving.responses import SENT_AT_ONCE, FileAnswer, answer_json, write_json

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    LEAVES | st.text(),
    lambda item: st.lists(item) | st.dictionaries(st.text(), item),
    max_leaves=20,
)


@given(VALUES)
def test_json_is_that_of_the_value(value: Any) -> None:
    assert write_json(value) == json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def test_what_json_lacks_is_not_written() -> None:
    with pytest.raises(ValueError, match="Out of range float values"):
        write_json({"data": [float("nan")]})


def test_answers_are_made_where_no_turn_waits() -> None:
    async def scenario() -> Any:
        engine = Engine(1)
        answer = await answer_json(engine, lambda: {"thread": threading.current_thread().name})
        await engine.close()
        return json.loads(bytes(answer.body))

    assert run(scenario())["thread"].startswith("view")


@pytest.mark.parametrize("length", [0, 1, SENT_AT_ONCE, 2 * SENT_AT_ONCE + 1])
@pytest.mark.parametrize("leaves", [False, True])
def test_a_file_is_sent_whole_and_closed(length: int, leaves: bool) -> None:
    file, sent = io.BytesIO(b"x" * length), list[Any]()

    async def send(message: Any) -> None:
        sent.append(message)
        if leaves:
            raise OSError("gone")

    async def scenario() -> None:
        engine = Engine(1)
        answer = FileAnswer(engine, file, "a b.memory")
        try:
            await answer({"type": "http"}, asyncio.Event().wait, send)  # pyright: ignore[reportArgumentType]
        except OSError:
            assert leaves
        await engine.close()

    run(scenario())
    assert file.closed
    headers = dict(sent[0]["headers"])
    assert headers[b"content-length"] == str(length).encode()
    assert headers[b"content-disposition"] == b"attachment; filename*=utf-8''a%20b.memory"
    if not leaves:
        assert b"".join(message["body"] for message in sent[1:]) == b"x" * length
        assert [message["more_body"] for message in sent[1:]] == [True] * (len(sent) - 2) + [False]
