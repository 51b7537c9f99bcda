"""A training checkpoint: weights, optimizer state and counters, restored to the bit."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import torch
from torch import Tensor

from slowwave.models.backbone import HybridLM
from slowwave.storage.checkpoint import load_tensors, load_weights, save_model, save_tensors
from slowwave.storage.files import sync_folder
from slowwave.storage.json_files import write_json
from slowwave.training.optimizer import Muon
from slowwave.training.run_files import read_counters
from slowwave.training.run_folder import Progress

MUON_STATE = ("momentum_buffer",)
ADAMW_STATE = ("exp_avg", "exp_avg_sq", "step")
NEVER_NEGATIVE = ("exp_avg_sq", "step")


def save_progress(
    folder: Path,
    model: HybridLM,
    optimizers: dict[str, torch.optim.Optimizer],
    progress: Progress,
) -> None:
    """Writes a complete checkpoint beside the old one, then swaps them.

    A kill in between leaves the old folder, or the new one, or the old one under `.previous`.
    """
    draft = folder.with_name(folder.name + ".draft")
    previous = folder.with_name(folder.name + ".previous")
    shutil.rmtree(draft, ignore_errors=True)
    save_model(draft, model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    tensors = {
        f"{names[id(parameter)]}:{key}": torch.as_tensor(value)
        for optimizer in optimizers.values()
        for parameter, entries in optimizer.state.items()
        for key, value in entries.items()
    }
    save_tensors(draft / "optimizer.safetensors", tensors)
    write_json(draft / "progress.json", dataclasses.asdict(progress))
    if folder.exists():
        shutil.rmtree(previous, ignore_errors=True)
        os.replace(folder, previous)
    os.replace(draft, folder)
    sync_folder(folder.parent)
    shutil.rmtree(previous, ignore_errors=True)


def load_progress(
    folder: Path, model: HybridLM, optimizers: dict[str, torch.optim.Optimizer]
) -> Progress:
    """Puts weights and optimizer state back and returns the counters.

    Parameters that have no gradient in the last step taken (`schedule.freeze_at`) need no optimizer
    state. Raises ValueError naming the file if one is missing, damaged or of another model.
    """
    try:
        weights = folder / "model.safetensors"
        load_weights(model, load_tensors(weights), weights)
        _load_optimizers(folder / "optimizer.safetensors", model, optimizers)
        return load_counters(folder)
    except ValueError as error:
        raise ValueError(f"{error}, or delete {folder} to train from the start") from None


def load_counters(folder: Path) -> Progress:
    """The counters of a checkpoint."""
    return Progress(**read_counters(folder / "progress.json"))


def _load_optimizers(
    path: Path, model: HybridLM, optimizers: dict[str, torch.optim.Optimizer]
) -> None:
    parameters = dict(model.named_parameters())
    owners = {
        id(parameter): optimizer
        for optimizer in optimizers.values()
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    tensors = load_tensors(path)
    expected = {
        f"{name}:{key}": (parameter, key)
        for name, parameter in parameters.items()
        for key in (MUON_STATE if isinstance(owners[id(parameter)], Muon) else ADAMW_STATE)
    }
    for entry in sorted(expected.keys() | tensors.keys()):
        if entry not in expected:
            raise ValueError(f"{path}: entry {entry} is not of this model; restore it")
        parameter, key = expected[entry]
        if entry not in tensors and not parameter.requires_grad:
            continue  # it was frozen in every step so far
        if entry not in tensors:
            raise ValueError(f"{path}: entry {entry} is missing; restore it")
        _require_like(f"{path}: entry {entry}", tensors[entry], parameter, key)
        value = tensors[entry] if key == "step" else tensors[entry].to(parameter.device)
        owners[id(parameter)].state[parameter][key] = value


def _require_like(where: str, value: Tensor, parameter: Tensor, key: str) -> None:
    """Raises ValueError if an entry is none of numbers as the optimizer keeps them."""
    shape = () if key == "step" else parameter.shape
    if value.shape != shape or value.dtype != torch.float32:
        raise ValueError(f"{where} is not of this model; restore it")
    if not value.isfinite().all() or (key in NEVER_NEGATIVE and (value < 0).any()):
        raise ValueError(f"{where} has a number that no run comes to; restore it")
