"""Every `slowwave memory` command on damaged files: one line that names the file, exit code 2."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from damage import spoil_archive, spoil_memory, spoil_rows
from slowwave import cli

Call = Callable[..., str]
Chat = Callable[..., object]


@pytest.fixture
def whole(model: Path, folder: Path, chat: Chat, call: Call) -> Path:
    """The files of a memory: its directory, an export and a state."""
    chat(["Ann lives in Lima.", "/snapshot monday", "And Bob?"], model, "--memory", "ann")
    call("memory", "export", "ann", "ann.memory")
    shutil.copytree("memories", "whole")
    shutil.copy(next(Path("memories/states").iterdir()), "one.safetensors")
    return folder


@pytest.fixture
def attempt(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Calls a command, which may be refused; returns the sentence then."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            assert exit_.code == 2
            printed = capsys.readouterr()
            assert printed.err.startswith("slowwave: ")
            assert printed.err.count("\n") == 1
            assert printed.err.rstrip("\n").isprintable()
            return printed.err
        return ""

    return run


def test_damaged_memories(whole: Path, model: Path, attempt: Callable[..., str]) -> None:
    refused = 0
    for seed in range(25):
        draw = random.Random(seed)
        shutil.rmtree("memories")
        shutil.copytree("whole", "memories")
        if seed % 3:
            spoil_rows(Path("memories/catalogue.sqlite"), draw)
        else:
            spoil_memory(draw.choice(sorted(Path("memories/states").iterdir())), draw)
        sentences = [
            attempt("memory", *arguments)
            for arguments in (
                ("list",),
                ("list", "--json"),
                ("show", "ann"),
                ("show", "ann@monday", "--json"),
                ("info", "ann"),
                ("diff", "ann", "ann@monday"),
                ("snapshot", "ann", "tuesday"),
                ("fork", "ann@monday", "bob"),
                ("export", "ann", "out.memory"),
                ("import", "out.memory", "--name", "eve"),
                ("probe", "ann", "--model", model, "--ask", "Who?", "--max-new-tokens", 2),
                ("rollback", "ann", "monday", "--yes"),
                ("forget", "ann", "--model", model, "--place", 0, "--yes"),
                ("rebuild", "ann", "--model", model),
                ("resleep", "ann", "slept", "--model", model),
                ("delete", "ann", "--yes"),
            )
        ]
        Path("out.memory").unlink(missing_ok=True)
        refused += any("memories/" in sentence for sentence in sentences)
    assert refused > 10


def test_damaged_exports_and_memory_files(whole: Path, attempt: Callable[..., str]) -> None:
    refused = 0
    for seed in range(30):
        shutil.copy("ann.memory", "spoiled.memory")
        shutil.copy("one.safetensors", "spoiled.safetensors")
        spoil_archive(Path("spoiled.memory"), random.Random(seed))
        spoil_memory(Path("spoiled.safetensors"), random.Random(seed))
        sentences = [
            attempt("memory", "info", "spoiled.memory"),
            attempt("memory", "info", "spoiled.safetensors"),
            attempt("memory", "import", "spoiled.memory", "--name", "eve"),
        ]
        assert all("spoiled." in sentence for sentence in sentences if sentence)
        refused += any(sentences)
        attempt("memory", "delete", "eve", "--yes")
    assert refused > 20
