"""Prompts are encoded in steps, up to what may be read and no further."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import pytest

from slowwave.memory.ledger import Entry
from slowwave.memory.turn import Steps, TooLong, finish, say, tell, tell_by_step
from slowwave.runtime.config import ChatFormat
from slowwave.serving.errors import ApiError
from slowwave.serving.history import Message
from slowwave.serving.plan import STEP_CHARACTERS, tell_all
from slowwave.storage.tokenizer import PIECE, ByteTokenizer

CHAT = ChatFormat()
BYTES = ByteTokenizer()


class PairTokenizer(ByteTokenizer):
    """Two tokens a byte; notes what was encoded."""

    def __init__(self) -> None:
        self.num_signs = 0

    def encode(self, text: str) -> list[int]:
        self.num_signs += len(text)
        return [half for byte in text.encode() for half in divmod(byte, 16)]

    def encode_in_pieces(self, text: str) -> Iterator[list[int]]:
        for start in range(0, len(text), 10):
            yield self.encode(text[start : start + 10])


def count_steps(steps: Steps[Any]) -> tuple[int, Any]:
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return count, done.value
        count += 1


def same(entry: Entry) -> Entry:
    return dataclasses.replace(entry, time=0.0)


def test_what_is_told_is_what_tell_and_say_make() -> None:
    messages = [
        Message("system", "Be brief."),
        Message("user", "a\nb", "ann"),
        Message("user", "c"),
    ]
    told = finish(tell_all(BYTES, CHAT, messages, most=99, param="the prompt"))
    expected = [say(BYTES, CHAT, each.role, each.text, each.teller) for each in messages]
    assert list(map(same, told)) == list(map(same, expected))
    told = finish(tell_all(BYTES, None, messages[1:2], most=99, param="text"))
    assert list(map(same, told)) == [same(tell(BYTES, "a\nb", "ann"))]


def test_a_long_text_is_many_steps() -> None:
    text = "a" * (5 * PIECE)
    count, told = count_steps(tell_all(BYTES, None, [Message("user", text)], most=10**6, param=""))
    assert (count >= 4, told[0].tokens) == (True, tuple(text.encode()))
    assert count_steps(tell_by_step(BYTES, "a" * PIECE))[0] == 0


def test_many_short_texts_are_few_steps() -> None:
    messages = [Message("user", "a" * 100)] * 1000
    count, told = count_steps(tell_all(BYTES, CHAT, messages, most=10**6, param=""))
    assert len(told) == 1000
    assert 100_000 // STEP_CHARACTERS - 1 <= count <= 100_000 // STEP_CHARACTERS


@pytest.mark.parametrize("lengths", [[51], [25, 26], [1] * 51])
def test_no_more_is_encoded_than_may_be_read(lengths: list[int]) -> None:
    """Two tokens a sign: that is known only when they are there."""
    messages = [Message("user", "a" * length) for length in lengths]
    tokenizer = PairTokenizer()
    with pytest.raises(ApiError) as error:
        finish(tell_all(tokenizer, None, messages, most=60, param="text"))
    assert error.value.detail == "text has more than 60 new tokens; send less"
    assert (error.value.code, error.value.param) == ("context_length_exceeded", "text")
    assert 30 <= tokenizer.num_signs <= 40
    assert len(finish(tell_all(tokenizer, None, messages, most=102, param=""))) == len(lengths)


def test_nothing_is_encoded_of_what_must_be_too_long() -> None:
    tokenizer = PairTokenizer()
    tokenizer.max_token_bytes = 3
    messages = [Message("user", "a" * 10)] * 4
    with pytest.raises(ApiError, match="more than 13 new tokens"):
        next(tell_all(tokenizer, None, messages, most=13, param="the prompt"))
    assert tokenizer.num_signs == 0


def test_too_long_a_text_is_named() -> None:
    with pytest.raises(TooLong, match="the text has more than 3 tokens; give less"):
        finish(tell_by_step(BYTES, "abcd", most=3))
    with pytest.raises(ValueError, match="the text is empty; give some text to read"):
        finish(tell_by_step(BYTES, ""))


def test_a_message_of_line_breaks_takes_no_time() -> None:
    """They were made a list of lines; it took a third of a second in one go."""
    began = time.thread_time()
    with pytest.raises(ValueError, match="the message is empty"):
        CHAT.write("user", "\n" * 4_000_000)
    assert time.thread_time() - began < 0.3
