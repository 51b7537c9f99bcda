"""What was typed is kept line by line, whatever ended the last chat."""

from __future__ import annotations

from pathlib import Path

import pytest

from slowwave.commands.line_input import TerminalInput, drop_cut_line


@pytest.mark.parametrize(
    ("kept", "left"),
    [
        (b"I am Ann.\nWho a", b"I am Ann.\n"),
        (b"I am Ann.\n\0\0\0\0", b"I am Ann.\n"),
        (b"I am Ann.\n", b"I am Ann.\n"),
        (b"I a", b""),
        (b"", b""),
    ],
)
def test_half_a_line_is_dropped(kept: bytes, left: bytes, folder: Path) -> None:
    history = folder / "chat-history"
    history.write_bytes(kept)
    drop_cut_line(history)
    assert history.read_bytes() == left


def test_it_does_not_begin_the_next_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = folder / "chat-history"
    history.write_bytes(b"I am Ann.\nWho a")
    monkeypatch.setattr("builtins.input", lambda _: "Hello")
    lines = TerminalInput(history)
    assert lines.read("> ") == "Hello"
    assert history.read_text() == "I am Ann.\nHello\n"


def test_no_history_is_no_fault(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda _: "Hello")
    assert TerminalInput(folder / "none" / "chat-history").read("> ") == "Hello"
    assert (folder / "none" / "chat-history").read_text() == "Hello\n"
