"""Work that takes long says how far it is, also where nobody sits at a terminal."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from slowwave import cli, status_line
from slowwave.commands import memory_points

Call = Callable[..., str]
Say = Callable[..., list[str]]


@pytest.fixture
def ann(model: Path, call: Call) -> None:
    """A memory of 40 tokens, 3 windows and a bit, from two sources."""
    call("generate", model, "x" * 30, "--read", "--memory", "ann", "--source", "notes")
    call("generate", model, "y" * 10, "--read", "--memory", "ann", "--source", "letters")


@pytest.fixture
def tell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Calls a command whose plain lines do not wait; returns those, on stderr."""

    def run(*arguments: object) -> list[str]:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(status_line, "FIRST_SECONDS", 0)
            cli.main([str(argument) for argument in arguments])
        return capsys.readouterr().err.splitlines()

    return run


def read_again(*done: int, total: int) -> list[str]:
    return [f"reading again: {tokens} of {total} tokens" for tokens in done]


@pytest.mark.usefixtures("ann")
def test_replays(model: Path, tell: Say, folder: Path) -> None:
    loading = f"loading {model}"
    lines = tell("memory", "resleep", "ann", "bob", "--model", model)
    assert lines == [loading, *read_again(12, 24, 36, total=40)]
    for state in (folder / "memories" / "states").iterdir():
        state.unlink()
    lines = tell("memory", "rebuild", "ann", "--model", model)
    assert lines[:4] == [loading, *read_again(12, 24, 36, total=40)]
    forget = ("memory", "forget", "ann", "--model", model, "--source", "letters", "--yes")
    assert tell(*forget) == [loading, *read_again(12, 24, total=30)]


@pytest.mark.usefixtures("ann")
def test_files(tell: Say, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tell("memory", "export", "ann", "ann.memory") == ["writing ann.memory"]
    assert tell("memory", "import", "ann.memory", "--name", "a") == ["reading ann.memory"]
    monkeypatch.setattr(memory_points, "LARGE_NBYTES", 10)
    lines = tell("memory", "import", "ann.memory", "--name", "b")
    assert re.fullmatch(r"taking in ann\.memory, [\d.]+ kB", lines[1])


@pytest.mark.usefixtures("ann")
def test_questions(model: Path, tell: Say) -> None:
    asked = ("--ask", "Who?", "Where?", "--max-new-tokens", 2)
    lines = tell("memory", "probe", "ann", "--model", model, *asked)
    assert lines == [f"loading {model}", *(f"asking: {i} of 2 questions" for i in (0, 1))]


def test_a_long_line_of_a_chat(
    model: Path, speak: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = list[str]()
    monkeypatch.setattr("slowwave.status_line.StatusLine.show", lambda _, line: shown.append(line))
    speak("x" * 30, "chat", model, "--max-new-tokens", 20)
    loading, first, second, *more = shown
    assert loading == f"loading {model}"
    assert (first, second) == (
        "reading: 12 tokens, slept 1 time",
        "reading: 24 tokens, slept 2 times",
    )
    # What is slept once a reply is shown is told after it: there the fourth window is filled.
    assert "reading: 48 tokens, slept 4 times" not in more
