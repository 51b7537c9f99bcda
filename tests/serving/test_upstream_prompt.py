"""What goes to a model elsewhere, and what is read of its answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowwave.memory.episodes import Episode
from slowwave.memory.ledger import Entry
from slowwave.memory.notebook import Recalled
from slowwave.serving.errors import ApiError
from slowwave.serving.history import Message
from slowwave.serving.upstream.call import Reply, StreamReader, read_whole
from slowwave.serving.upstream.prompt import MEMORY, compose, cut, describe_memory, read_messages

NO_MEMORY = Recalled("", [], [])
ROOMY = {"window_characters": 1000, "memory_characters": 1000}
roles = st.sampled_from(["user", "assistant", "tool", "system"])
conversations = st.lists(
    st.builds(lambda role, size: {"role": role, "content": "x" * size}, roles, st.integers(0, 9)),
    max_size=12,
)


def say(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def episode(statement: str, id_: int = 1) -> Episode:
    told: dict[str, Any] = {"place": 0, "start": 0, "stop": 1, "time": 0.0, "source": "ann"}
    found: dict[str, Any] = {"kind": "fact", "confidence": 1.0, "written": 0.0}
    return Episode(id=id_, statement=statement, **told, **found)


def entry(role: Any, said: str, source: str = "user") -> Entry:
    kind = "reply" if role == "assistant" else "told"
    return Entry(kind=kind, time=0.0, source=source, text=said, said=said, role=role)


@given(conversations, st.integers(0, 60))
def test_a_window_is_the_longest_end_that_fits_and_begins_with_a_user(
    messages: list[dict[str, Any]], most: int
) -> None:
    def size(start: int) -> int:
        return sum(len(message["content"]) for message in messages[start:])

    users = [i for i, message in enumerate(messages) if message["role"] == "user"]
    fitting = [i for i in users if size(i) <= most]
    expected = 0 if not users or size(0) <= most else (fitting or users[-1:])[0]
    assert cut(messages, most) == messages[expected:]


@given(
    st.lists(st.text("ab\n", max_size=20), max_size=5).map("\n".join),
    st.lists(st.text("cd", min_size=1, max_size=20), max_size=5),
    st.integers(0, 120),
)
def test_what_a_memory_holds_is_bounded(block: str, statements: list[str], most: int) -> None:
    told = describe_memory(block, [*map(episode, statements)], most)
    lines = [each for each in told.removeprefix(MEMORY).splitlines() if each and each[0] != "<"]
    assert sum(len(line) + 1 for line in lines) <= most
    notes = [line for line in lines if not line.startswith("[")]
    assert notes == [line for line in block.strip().splitlines() if line][: len(notes)]
    shown = [line.split(": ")[1].removesuffix(" (fact)") for line in lines if line[0] == "["]
    assert shown == statements[len(statements) - len(shown) :]
    assert (told == "") == (not lines)


def test_notes_and_episodes_go_to_the_end_of_the_system_message() -> None:
    recalled = Recalled("Ann drinks tea.", [episode("Ann lives in Lima.")], [])
    sent = [say("system", "Be brief."), say("user", "Hi")]
    (system, user) = compose(sent, [], recalled, **ROOMY)
    assert system["content"] == f"Be brief.\n\n{describe_memory(*recalled[:2], 1000)}"
    assert "Ann drinks tea." in system["content"] and "ann: Ann lives in Lima." in system["content"]
    assert user is sent[1]
    (system, _) = compose([say("developer", [{"type": "text", "text": "x"}]), *sent[1:]], [],
                          recalled, **ROOMY)  # fmt: skip
    assert (system["role"], system["content"][0]["text"]) == ("developer", "x")
    assert "Ann drinks tea." in system["content"][1]["text"]
    (system, _) = compose(sent[1:], [], recalled, **ROOMY)
    assert system["role"] == "system" and system["content"].startswith(MEMORY)
    assert compose(sent, [], NO_MEMORY, **ROOMY) == sent


def test_what_was_said_before_goes_before_what_is_sent() -> None:
    said = [
        entry("system", "Be brief.", "system"),
        entry("user", "a"),
        entry("assistant", ""),
        entry("user", "result", "tool"),
        entry("assistant", "A"),
        entry("user", "b"),
        entry("assistant", "B"),
    ]
    recalled = Recalled("", [], [(each, each.said) for each in said])
    before = [say("system", "Be brief."), say("user", "a"), say("assistant", "A")]
    asked = [say("user", "b"), say("assistant", "B"), say("user", "c")]
    assert compose(asked, said[5:], recalled, **ROOMY) == [*before, *asked]
    assert compose(asked[2:], [], recalled, **ROOMY) == [*before, *asked]
    assert compose([say("system", "New."), *asked], said[5:], recalled, **ROOMY)[0] == say(
        "system", "New."
    )


def test_messages_are_read_as_a_ledger_has_them() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:,"}}
    values = [
        say("developer", "Be brief."),
        {**say("user", "Hi"), "name": "ben"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {**say("tool", "42"), "tool_call_id": "1"},
        say("user", [{"type": "text", "text": "See "}, picture]),
    ]
    assert read_messages(values, "ann") == [
        Message("system", "Be brief."),
        Message("user", "Hi", "ben"),
        Message("user", "42", "tool"),
        Message("user", "See [image_url]", "ann"),
    ]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (None, "messages is no list"),
        ([], "messages is no list"),
        (["x"], "messages.0.role is None; use one of"),
        ([{"role": "king", "content": "x"}], "messages.0.role is 'king'; use one of"),
        ([say("user", " ")], "messages.0.content is empty"),
        ([say("user", "x"), say("assistant", "y")], "the last of messages is by the assistant"),
        ([say("user", "x")] * 5000, "messages has 5000 items"),
    ],
)
def test_messages_that_are_none_are_rejected(values: Any, sentence: str) -> None:
    with pytest.raises(ApiError, match=sentence):
        read_messages(values, None)


def chunk(text: str | None, finish: str | None = None) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]}, ensure_ascii=False)}"


@given(
    st.lists(st.text(max_size=5), max_size=5),
    st.sampled_from([None, "stop", "length", "tool_calls"]),
    st.booleans(),
    st.sampled_from(["\n\n", "\r\n\r\n"]),
    st.lists(st.integers(0, 400)),
)
def test_a_stream_says_the_same_in_any_pieces(
    texts: list[str], finish: str | None, is_done: bool, end: str, cuts: list[int]
) -> None:
    lines = [": waiting", *map(chunk, texts), chunk(None, finish), 'data: {"choices": []}']
    lines += ["data: [DONE]"] * is_done
    content = "".join(f"{line}{end}" for line in lines).encode()
    reader, at = StreamReader(), 0
    for stop in sorted({*cuts, len(content)}):
        reader.feed(content[at:stop])
        at = max(at, stop)
    said = "".join(texts).encode("utf-8", "replace").decode()
    expected = Reply(said, "length" if finish == "length" else "stop")
    assert reader.reply() == (expected if finish or is_done else None)
    assert reader.is_done == is_done


def test_a_stream_that_tells_of_an_error_has_no_reply() -> None:
    reader = StreamReader()
    reader.feed(f'{chunk("a", "stop")}\n\ndata: {{"error": {{}}}}\n\ndata: [DONE]\n\n'.encode())
    assert reader.reply() is None


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"choices": []}', b'{"choices": [1]}'])
def test_what_is_no_completion_is_none(content: bytes) -> None:
    with pytest.raises(ValueError):
        read_whole(content)


def test_a_call_of_tools_is_a_blank_reply() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": []}
    choices = [{"message": message, "finish_reason": "tool_calls"}]
    assert read_whole(json.dumps({"choices": choices}).encode()) == Reply("", "stop")
