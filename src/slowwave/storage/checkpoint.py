"""A model on disk, and what tells it from others: a hash of its config and all of its weights.

`model.safetensors` has float32 weights, `config.json` lies beside it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import weakref
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from slowwave.config import Config
from slowwave.models.backbone import HybridLM
from slowwave.models.config import ModelConfig
from slowwave.storage.files import read_plain, write_atomically
from slowwave.storage.json_files import read_json, write_json

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""What weights may be read of."""

_KNOWN: weakref.WeakKeyDictionary[HybridLM, tuple[list[Any], str]] = weakref.WeakKeyDictionary()
"""Fingerprints, and the versions of the weights that they were taken of."""


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes named tensors as one safetensors file, atomically."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, safetensors.torch.save(plain))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file; raises ValueError naming it if it is missing, cut or foreign.

    Tensors are cloned out of the file's buffer, whose alignment would change how kernels round.
    """
    try:
        content = read_plain(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; name a folder that holds one") from None
    try:
        loaded = safetensors.torch.load(content)
    # Of a shape that is too large for torch it raises RuntimeError, or TypeError.
    except (
        safetensors.SafetensorError,
        ValueError,
        KeyError,
        RuntimeError,
        TypeError,
    ) as error:
        raise ValueError(
            f"{path}: truncated or not a safetensors file ({_first_line(error)}); restore it"
        ) from None
    return {name: tensor.clone() for name, tensor in loaded.items()}


def save_model(folder: Path, model: HybridLM) -> None:
    """Writes weights and config into `folder`."""
    save_tensors(folder / "model.safetensors", model.state_dict())
    write_json(folder / "config.json", model.config.to_dict())


def load_weights(model: HybridLM, tensors: dict[str, Tensor], source: Path) -> None:
    """Copies tensors into the model; raises ValueError on any missing, extra or unfit tensor.

    A tensor is unfit by its shape, as one of integers or complex numbers, and with NaN or infinity.
    """
    expected = model.state_dict()
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors:
            raise ValueError(f"{source}: tensor {name} is missing; use the model's own checkpoint")
        if name not in expected:
            raise ValueError(f"{source}: tensor {name} is not of this model; use its own config")
        if tensors[name].shape != expected[name].shape:
            raise ValueError(
                f"{source}: tensor {name} has shape {tuple(tensors[name].shape)}, the config says "
                f"{tuple(expected[name].shape)}; use the config that made it"
            )
        _require_numbers(name, tensors[name], source)
    model.load_state_dict(tensors)


def _require_numbers(name: str, tensor: Tensor, source: Path) -> None:
    if tensor.dtype not in FLOATS:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ValueError(f"{source}: tensor {name} is {kind}, not float32; restore the file")
    if not tensor.isfinite().all():
        raise ValueError(f"{source}: tensor {name} has NaN or infinity; restore the file")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def load_model(folder: str | Path, *, device: str | torch.device = "cpu") -> HybridLM:
    """Builds the model that `save_model` wrote into `folder`."""
    folder = Path(folder)
    config = ModelConfig.from_dict(read_json(folder / "config.json"))
    model = HybridLM(config)
    path = folder / "model.safetensors"
    load_weights(model, load_tensors(path), path)
    return model.to(device)


def fingerprint_model(model: HybridLM) -> str:
    """A SHA-256 of config and weights, as hex; taken once for weights that stay as they are.

    A change of the weights is seen, unless it goes through `weight.data`, which torch hides.
    """
    weights = model.state_dict()
    versions = [_version(tensor) for tensor in weights.values()]
    known = _KNOWN.get(model)
    if known is None or known[0] != versions:
        known = _KNOWN[model] = (versions, _hash(model.config, weights))
    return known[1]


def _version(tensor: Tensor) -> Any:
    # Tensors made in inference mode count no versions; nothing equals a fresh object.
    return object() if tensor.is_inference() else (tensor.data_ptr(), tensor._version, tensor.dtype)


def _hash(config: Config, weights: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(_chosen(config), sort_keys=True).encode())
    for name, tensor in sorted(weights.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        plain = tensor.detach().cpu().contiguous()
        digest.update(plain.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _chosen(config: Config) -> dict[str, Any]:
    """What differs from the defaults: a later option that is not used leaves fingerprints alone."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    chosen = {name for name, default in defaults.items() if getattr(config, name) != default}
    return {name: value for name, value in config.to_dict().items() if name in chosen}
