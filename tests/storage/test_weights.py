"""Weights of another program: by memory map, whole or refused, and never a pickle file."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gguf_maker import write_gguf
from slowwave.storage.weights import INDEX, WEIGHTS, open_weights

FIRST = {"a": torch.randn(2, 3), "b": torch.randn(5).bfloat16()}
SECOND = {"c": torch.randn(2, 2).half(), "ids": torch.arange(4)}


def write_shards(folder: Path, places: dict[str, Any] | None = None) -> Path:
    save_file(FIRST, folder / "one.safetensors")
    save_file(SECOND, folder / "two.safetensors")
    named = dict.fromkeys(FIRST, "one.safetensors") | dict.fromkeys(SECOND, "two.safetensors")
    index = {"metadata": {}, "weight_map": named if places is None else places}
    (folder / INDEX).write_text(json.dumps(index))
    return folder


def test_reads_a_folder_of_one_file(tmp_path: Path) -> None:
    save_file(FIRST, tmp_path / WEIGHTS)
    for path in (tmp_path, tmp_path / WEIGHTS):
        source = open_weights(path)
        assert source.path == path
        assert source.names == ("a", "b")
        assert source.shape("a") == (2, 3)
        assert source.num_bytes == 2 * 3 * 4 + 5 * 2
        for name, tensor in FIRST.items():
            assert torch.equal(source.read(name), tensor)
            assert source.read(name).dtype == tensor.dtype


def test_reads_a_folder_in_shards_without_tensors_of_integers(tmp_path: Path) -> None:
    source = open_weights(write_shards(tmp_path))
    assert source.names == ("a", "b", "c")
    assert all(torch.equal(source.read(n), t) for n, t in (FIRST | {"c": SECOND["c"]}).items())
    assert source.num_bytes == 24 + 10 + 8


def test_tensors_are_mapped_and_not_read(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(64, 2**20)}, tmp_path / WEIGHTS)
    before = resident_bytes()
    source = open_weights(tmp_path)
    tensor = source.read("a")
    assert tensor.nbytes == 2**28
    assert resident_bytes() - before < 2**26


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_writing_into_a_tensor_leaves_the_file(tmp_path: Path) -> None:
    save_file(FIRST, tmp_path / WEIGHTS)
    open_weights(tmp_path).read("a").zero_()
    assert torch.equal(open_weights(tmp_path).read("a"), FIRST["a"])


def test_a_link_to_a_file_elsewhere_is_followed(tmp_path: Path) -> None:
    folder = tmp_path / "snapshot"
    folder.mkdir()
    save_file(FIRST, tmp_path / "blob")
    (folder / WEIGHTS).symlink_to("../blob")  # as the hub's cache has it
    assert open_weights(folder).names == ("a", "b")


def test_reads_a_gguf_file(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", {"x": np.ones((2, 4), np.float32)})
    assert open_weights(path).names == ("x",)
    with pytest.raises(ValueError, match=r"has no model\.safetensors; name the file .*a\.gguf"):
        open_weights(tmp_path)


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "a.ckpt", "a.pkl"])
def test_a_pickle_file_is_never_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(ValueError, match=f"{name} is a pickle file, .* convert the model"):
            open_weights(path)
    (tmp_path / name).rename(tmp_path / WEIGHTS)  # under a false name
    with pytest.raises(ValueError, match="not a safetensors file"):
        open_weights(tmp_path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "file",
    [
        "../one.safetensors",
        "/etc/one.safetensors",
        "a/one.safetensors",
        "..\\one.safetensors",
        "c:one.safetensors",
        "one\n.safetensors",
        "pytorch_model.bin",
        "",
        7,
        None,
    ],
)
def test_an_index_that_names_a_file_elsewhere_is_refused(tmp_path: Path, file: Any) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(FIRST, tmp_path / "one.safetensors")
    with pytest.raises(ValueError, match=r"puts tensor a into .* of this folder"):
        open_weights(write_shards(folder, {"a": file}))


def test_a_missing_shard_and_a_missing_tensor_are_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, {"a": "one.safetensors", "z": "two.safetensors"})
    with pytest.raises(ValueError, match=r"two\.safetensors: lacks tensor z, which model\."):
        open_weights(tmp_path)
    write_shards(tmp_path)
    (tmp_path / "two.safetensors").unlink()
    with pytest.raises(ValueError, match=r"two\.safetensors: no such file"):
        open_weights(tmp_path)


@pytest.mark.parametrize("index", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_an_index_of_another_form_is_refused(tmp_path: Path, index: str) -> None:
    (tmp_path / INDEX).write_text(index)
    with pytest.raises(ValueError, match=INDEX):
        open_weights(tmp_path)


@pytest.mark.parametrize("kept", [0, 7, 30, -1])
def test_a_cut_file_is_refused(tmp_path: Path, kept: int) -> None:
    save_file(FIRST, tmp_path / WEIGHTS)
    content = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(content[:kept])
    with pytest.raises(ValueError, match=r"model\.safetensors: truncated or not a safetensors"):
        open_weights(tmp_path)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no model\.safetensors and no model\.safetensors\."):
        open_weights(tmp_path)
    with pytest.raises(ValueError, match="no such file or folder"):
        open_weights(tmp_path / "missing")
    os.mkfifo(tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match="no plain file"):
        open_weights(tmp_path)
