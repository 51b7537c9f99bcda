"""A tiny model in a folder, and commands called as a shell would."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slowwave import cli
from slowwave.commands.memory import DIRECTORY
from slowwave.models.backbone import HybridLM
from slowwave.runtime.config import ChatFormat
from slowwave.runtime.model_folder import TalkerConfig, save
from slowwave.sleep.config import SleepConfig
from slowwave.storage.tokenizer import ByteTokenizer
from tiny_models import THREE_LAYERS

CONFIG = TalkerConfig(
    model=THREE_LAYERS,
    sleep=SleepConfig(window=12, passes=2),
    chat=ChatFormat(),
    precision="float32",
)
# Of a model whose likeliest reply does not end by itself.
SEED = 26

Call = Callable[..., str]
Chat = Callable[..., list[Any]]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that babbles."""
    folder = tmp_path_factory.mktemp("models") / "babbler"
    save(folder, HybridLM(THREE_LAYERS, seed=SEED), ByteTokenizer(), CONFIG)
    return folder


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, whose memories are in `memories`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(DIRECTORY, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Calls a command; returns what it prints on stdout."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        cli.main([str(argument) for argument in arguments])
        return capsys.readouterr().out

    return run


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Call:
    """Calls a command that is refused; returns the sentence."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            cli.main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert exit_.value.code == 2
        assert printed.out == ""
        assert printed.err.startswith("slowwave: ")
        assert printed.err.count("\n") == 1
        return printed.err.removeprefix("slowwave: ")

    return run


@pytest.fixture
def speak(call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls a command that is given text on stdin."""

    def run(text: str | bytes, *arguments: object) -> str:
        said = folder / "said"
        said.write_bytes(text if isinstance(text, bytes) else text.encode())
        with said.open("rb") as file:
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file))
            return call(*arguments)

    return run


@pytest.fixture
def chat(speak: Call) -> Chat:
    """Leads a chat with --json; returns its documents, the first of them `opened`."""

    def run(lines: list[str], *arguments: object) -> list[Any]:
        out = speak("".join(f"{line}\n" for line in lines), "chat", *arguments, "--json")
        return [json.loads(line) for line in out.splitlines()]

    return run
