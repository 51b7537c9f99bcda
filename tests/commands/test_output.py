"""Output into any encoding, and into pipes that nobody reads any more."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from slowwave import cli
from slowwave.commands.process import BROKEN_PIPE

Call = Callable[..., str]
NAME = "Jürgen ☕"
TEXT = "Zürich → “Tee”… 日本语 e\u0301\n"


@pytest.fixture
def jurgen(model: Path, speak: Call) -> str:
    """A memory whose name and texts few encodings have."""
    speak(TEXT, "generate", model, "--stdin", "--read", "--memory", NAME)
    return NAME


def call_in(encoding: str, *arguments: object, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a command prints where both streams have an encoding, which is decoded again."""
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding=encoding)
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setattr("sys.stderr", stream)
    code = 0
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as exit_:
        code = exit_.code
    stream.flush()
    return f"{written.getvalue().decode(encoding)}{code or ''}"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "cp1252", "cp932", "utf-8"])
def test_signs_that_an_encoding_lacks_are_replaced(
    encoding: str, jurgen: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = NAME.replace("☕", "??") if encoding != "utf-8" else NAME
    if encoding in ("ascii", "cp932"):
        shown = shown.replace("ü", "?")
    for arguments in (
        ("memory", "list"),
        ("memory", "info", jurgen),
        ("memory", "snapshot", jurgen, f"{encoding} ü"),
        ("memory", "diff", jurgen, jurgen),
    ):
        assert shown in call_in(encoding, *arguments, monkeypatch=monkeypatch)
    ledger = call_in(encoding, "memory", "show", jurgen, monkeypatch=monkeypatch)
    header, line = ledger.splitlines()[:2]
    assert "rich" in line
    if encoding == "ascii":
        assert 'Z?rich ? "Tee"~ ?????? e' in line
        assert len(header) == len(line)  # so its columns are under each other
    refused = call_in(encoding, "memory", "show", "ö☕", monkeypatch=monkeypatch)
    assert refused.startswith("slowwave: no session '") and refused.endswith("\n2")
    assert shown in refused
    for arguments in (("doctor",), ("tasks",), ("chat", "--help"), ("memory", "show", "--☕")):
        assert call_in(encoding, *arguments, monkeypatch=monkeypatch)
    dry = ("memory", "forget", jurgen, "--source", "user", "--dry-run", "--model", model)
    assert "rich" in call_in(encoding, *dry, monkeypatch=monkeypatch)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_chat_goes_on_in_any_encoding(
    encoding: str, jurgen: str, model: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    (folder / "said").write_text("☕ für Jürgen\n/ledger\n/snapshot ☕\nexit\n", encoding="utf-8")
    with (folder / "said").open("rb") as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file))
        chat = ("chat", model, "--memory", jurgen, "--max-new-tokens", 3)
        shown = call_in(encoding, *chat, monkeypatch=monkeypatch)
    assert "restored: " in shown and "snapshot '??' is kept" in shown
    assert "codec" not in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("memory", "--help"),
        ("chat", "--help"),
        ("tasks",),
        ("tasks", "depo", "--show", "3"),
        ("memory", "list"),
        ("memory", "list", "--json"),
        ("memory", "show", NAME),
    ],
)
def test_a_reader_that_has_enough_ends_a_command_as_any_other(
    arguments: tuple[str, ...], jurgen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        with pytest.raises(SystemExit) as exit_:
            cli.main([*arguments])
    assert exit_.value.code == BROKEN_PIPE


def start(arguments: str, redirections: str) -> tuple[int, str]:
    """Code and stderr of a command that a shell starts."""
    command = f"{shlex.quote(sys.executable)} -m slowwave.cli {arguments} {redirections}"
    # As users have it, where the interpreter writes what is left at its end.
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        ["sh", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, env=buffered
    )
    return done.returncode, done.stderr.decode()


def test_nothing_is_said_when_a_reader_has_enough() -> None:
    """Not even by the interpreter, whose last act is to write what is left."""
    for arguments in ("tasks", "--help"):
        assert start(arguments, "| true")[1] == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_sentence() -> None:
    assert start("--help", "> /dev/full") == (2, "slowwave: the disk is full; make room\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though what was printed before it and what is left at the end both find it full."""
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stdout", full)
        with pytest.raises(SystemExit) as exit_:
            cli.main(["doctor"])
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "slowwave: the disk is full; make room\n"


def test_closed_streams_lead_nowhere() -> None:
    assert start("--help", "<&- >&-") == (0, "")
    assert start("nope", ">&- 2>&-") == (2, "")
