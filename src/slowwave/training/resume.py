"""A training checkpoint: weights, optimizer state and counters, restored to the bit."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import torch

from slowwave.evaluation.run_files import read_counters
from slowwave.models.backbone import HybridLM
from slowwave.storage.checkpoint import load_tensors, load_weights, save_model, save_tensors
from slowwave.storage.files import sync_folder, write_json
from slowwave.training.progress import Progress


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

    Raises ValueError naming the file if one is missing, damaged or of another model.
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
    if not tensors:
        raise ValueError(f"{path}: holds nothing; restore it")
    for entry, value in tensors.items():
        name, _, key = entry.rpartition(":")
        parameter = parameters.get(name)
        if parameter is None or (key != "step" and value.shape != parameter.shape):
            raise ValueError(f"{path}: entry {entry} is not of this model; restore it")
        value = value if key == "step" else value.to(parameter.device)
        owners[id(parameter)].state[parameter][key] = value
