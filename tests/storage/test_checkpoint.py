"""Checkpoints: exact, whole or not at all, and refused in one sentence when they do not fit."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import get_args

import pytest
import safetensors.torch
import torch

from slowwave.models.backbone import HybridLM
from slowwave.models.config import LayerType, ModelConfig
from slowwave.storage.checkpoint import load_model, load_tensors, save_model
from slowwave.storage.files import write_atomically
from slowwave.storage.json_files import read_json

SIZES = ModelConfig(
    vocab_size=7,
    width=16,
    layers=get_args(LayerType),
    mlp_hidden=32,
    attn_heads=2,
    delta_heads=2,
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", HybridLM(SIZES, seed=3))
    return tmp_path / "model"


def test_round_trip_is_exact(saved: Path) -> None:
    loaded, original = load_model(saved), HybridLM(SIZES, seed=3)
    assert loaded.config == original.config
    tokens = torch.arange(6)[None]
    assert torch.equal(loaded(tokens)[0], original(tokens)[0])


def test_files_are_the_same_from_run_to_run(saved: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "again", HybridLM(SIZES, seed=3))
    for name in ("model.safetensors", "config.json"):
        assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize("kept_bytes", [0, 7, 100, 2000])
def test_truncated_file(saved: Path, kept_bytes: int) -> None:
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(ValueError, match=r"model\.safetensors: truncated or not a safetensors"):
        load_model(saved)


def test_foreign_file(saved: Path) -> None:
    (saved / "model.safetensors").write_bytes(b"PK\x03\x04" + bytes(500))
    with pytest.raises(ValueError, match=r"model\.safetensors: truncated or not a safetensors"):
        load_model(saved)


def test_checkpoint_of_another_shape(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "mlp_hidden": 48}))
    with pytest.raises(ValueError, match=r"mlp\.out\.weight has shape \(16, 32\), the config says"):
        load_model(saved)


def test_missing_and_extra_tensors(saved: Path) -> None:
    path = saved / "model.safetensors"
    tensors = safetensors.torch.load(path.read_bytes())
    head = tensors.pop("head.weight")
    path.write_bytes(safetensors.torch.save(tensors))
    with pytest.raises(ValueError, match=r"tensor head\.weight is missing"):
        load_model(saved)
    path.write_bytes(safetensors.torch.save({**tensors, "head.weight": head, "more": head.clone()}))
    with pytest.raises(ValueError, match="tensor more is not of this model"):
        load_model(saved)


def test_unknown_key_in_the_config(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "depth": 3}))
    with pytest.raises(ValueError, match="depth: unknown key in ModelConfig"):
        load_model(saved)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json: no such file"):
        load_model(tmp_path)


def test_malformed_json(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ValueError, match=r"x\.json: not valid JSON"):
        read_json(tmp_path / "x.json")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")  # pyright: ignore[reportArgumentType]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_pipe_or_a_device_is_not_read(saved: Path) -> None:
    path = saved / "model.safetensors"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match=r"model\.safetensors: no plain file; name another"):
        load_model(saved)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"model\.safetensors: no plain file; name another"):
        load_model(saved)


@pytest.mark.parametrize("shape", [[0, 2**62, 2**62], [0, 2**63], [2**64 - 1, 0]])
def test_shapes_of_no_tensor_are_damage(tmp_path: Path, shape: list[int]) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ValueError, match=r"a\.safetensors: truncated or not .*; restore it$"):
        load_tensors(path)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (torch.full((7, 16), float("nan")), "has NaN or infinity"),
        (torch.full((7, 16), float("-inf")), "has NaN or infinity"),
        (torch.ones(7, 16, dtype=torch.complex64), "is complex64, not float32"),
        (torch.ones(7, 16, dtype=torch.int64), "is int64, not float32"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(
    saved: Path, value: torch.Tensor, fault: str
) -> None:
    path = saved / "model.safetensors"
    tensors = safetensors.torch.load(path.read_bytes())
    path.write_bytes(safetensors.torch.save({**tensors, "head.weight": value}))
    with pytest.raises(ValueError, match=rf"tensor head\.weight {fault}; restore the file"):
        load_model(saved)
