"""Models by name: a path first, then the cache of the hub, then the hub."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from slowwave.storage.hub import find_model


def test_a_path_is_itself(tmp_path: Path) -> None:
    assert find_model(tmp_path) == tmp_path
    assert find_model("missing.gguf") == Path("missing.gguf")
    assert find_model("a/b/c") == Path("a/b/c")


def test_a_model_in_the_cache_is_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []

    def find(name: str, *, local_files_only: bool = False, **_: Any) -> str:
        assert name == "org/model"
        calls.append(local_files_only)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", find)
    assert find_model("org/model") == tmp_path
    assert calls == [True]


def test_another_is_fetched_without_pickles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(name: str, *, local_files_only: bool = False, **options: Any) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("not here")
        assert "*.safetensors" in options["allow_patterns"]
        assert "*.bin" not in options["allow_patterns"]
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert find_model("org/model") == tmp_path


def test_a_hub_that_gives_none_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, **_: Any) -> str:
        raise LocalEntryNotFoundError("no connection\nand much more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ValueError, match=r"no such folder, and the hub gave none") as raised:
        find_model("org/model")
    assert "\n" not in str(raised.value)
