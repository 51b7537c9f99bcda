"""What tells one model from another: a hash of its config and all of its weights."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import weakref
from typing import Any

import torch
from torch import Tensor

from slowwave.config import Config
from slowwave.models.backbone import HybridLM

_KNOWN: weakref.WeakKeyDictionary[HybridLM, tuple[list[Any], str]] = weakref.WeakKeyDictionary()


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
