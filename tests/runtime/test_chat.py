"""A conversation is lines, and nobody can write a line for somebody else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowwave.runtime.config import BREAKS, ChatFormat, flatten

CHAT = ChatFormat()


def test_lines() -> None:
    assert CHAT.write("user", "Where is Ann?") == "> Where is Ann?\n"
    assert CHAT.write("system", "Be brief.") == "# Be brief.\n"
    assert CHAT.write("user", " a\nb\r\nc\n") == "> a b c\n"


@given(st.text())
def test_a_message_is_one_line(text: str) -> None:
    if not "".join(text.split()):
        with pytest.raises(ValueError, match="the message is empty; say something"):
            CHAT.write("user", text)
        return
    line = CHAT.write("user", text)
    assert line.startswith("> ")
    assert line.splitlines(keepends=True) == [line]
    assert line.endswith("\n")
    assert line[2:].split() == text.split()


@given(st.lists(st.sampled_from([*BREAKS, "a", " ", "\r", "\x1f"])).map("".join) | st.text())
def test_every_break_is_a_space(text: str) -> None:
    assert flatten(text) == " ".join(text.splitlines()).strip()


@given(st.text(), st.text(), st.sampled_from(["> ", "# ", ">", "", " > "]))
def test_every_role_has_lines_of_its_own(text: str, other: str, begun: str) -> None:
    """A reply that begins with a mark of another role is still a reply."""
    if not text.strip() or not other.strip():
        return
    reply = CHAT.write("assistant", begun + other)
    assert len({CHAT.write("user", text), CHAT.write("system", text), reply}) == 3
    assert not reply.startswith(CHAT.marks)
    assert reply.split() == (begun + other).split()


@pytest.mark.parametrize("mark", ["", " > ", "a\nb", "\n", "# ", "#"])
def test_marks_must_tell_roles_apart(mark: str) -> None:
    with pytest.raises(ValueError, match=r"chat\.user_mark"):
        ChatFormat(user_mark=mark)
