"""A conversation is lines, and nobody can write a line for somebody else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowwave.generation.chat import ChatFormat

CHAT = ChatFormat()


def test_lines() -> None:
    assert CHAT.format_user("Where is Ann?") == "> Where is Ann?\n"
    assert CHAT.format_system("Be brief.") == "# Be brief.\n"
    assert CHAT.format_user(" a\nb\r\nc\n") == "> a b c\n"


@given(st.text())
def test_a_message_is_one_line(text: str) -> None:
    if not "".join(text.split()):
        with pytest.raises(ValueError, match="the message is empty; say something"):
            CHAT.format_user(text)
        return
    line = CHAT.format_user(text)
    assert line.startswith("> ")
    assert line.splitlines(keepends=True) == [line]
    assert line.endswith("\n")
    assert line[2:].split() == text.split()
