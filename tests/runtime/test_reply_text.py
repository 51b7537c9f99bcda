"""Tokens become text as soon as it is certain, and none of a stop text is shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byte_tokenizer import ByteTokenizer
from slowwave.runtime.reply import ReplyText


def push_all(text: str, stops: list[str]) -> tuple[list[str], bool]:
    reply, pieces = ReplyText(ByteTokenizer(), stops), list[str]()
    for token in text.encode():
        pieces.append(reply.push(token))
        if reply.is_stopped:
            break
    return [*pieces, reply.finish()], reply.is_stopped


@given(
    st.text(alphabet="ab\n\u00e9\U0001f600", max_size=12),
    st.lists(st.text(alphabet="ab\n\u00e9", min_size=1, max_size=4), max_size=3),
)
def test_text_up_to_the_first_stop(text: str, stops: list[str]) -> None:
    pieces, stopped = push_all(text, stops)
    ends = [i for i in range(len(text)) if any(text[:i].endswith(stop) for stop in stops)]
    ends += [len(text)] if any(text.endswith(stop) for stop in stops) else []
    assert stopped == bool(ends)
    said = "".join(pieces)
    if not ends:
        assert said == text
    else:  # the first stop text to be complete ends it, at its beginning
        read = text[: ends[0]]
        assert said == min((read[: read.find(s)] for s in stops if s in read), key=len)


def test_pieces_come_as_soon_as_they_are_certain() -> None:
    assert push_all("ab\u00e9c", ["\n"])[0] == ["a", "b", "", "\u00e9", "c", ""]
    assert push_all("xENxEND.", ["END"])[0] == ["x", "", "", "ENx", "", "", "", ""]
    assert push_all("xEN", ["END"])[0] == ["x", "", "", "EN"]
    assert push_all("a\u00e9"[:1], [])[0] == ["a", ""]


def test_a_character_that_stays_incomplete() -> None:
    reply = ReplyText(ByteTokenizer(), ["\n"])
    assert (reply.push(0xC3), reply.finish()) == ("", "\ufffd")


def test_an_empty_stop_is_refused() -> None:
    with pytest.raises(ValueError, match="stop holds an empty text, which is everywhere"):
        ReplyText(ByteTokenizer(), ["a", ""])
