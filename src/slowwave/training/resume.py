"""A training checkpoint: weights, optimizer state and counters, restored to the bit."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import torch

from slowwave.model.hybrid import HybridLM
from slowwave.storage.checkpoint import load_tensors, load_weights, save_model, save_tensors
from slowwave.storage.files import read_json, write_json
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
    shutil.rmtree(previous, ignore_errors=True)
    if folder.exists():
        os.replace(folder, previous)
    os.replace(draft, folder)
    shutil.rmtree(previous, ignore_errors=True)


def load_progress(
    folder: Path, model: HybridLM, optimizers: dict[str, torch.optim.Optimizer]
) -> Progress:
    """Puts weights and optimizer state back and returns the counters."""
    weights = folder / "model.safetensors"
    load_weights(model, load_tensors(weights), weights)
    parameters = dict(model.named_parameters())
    owners = {
        id(parameter): optimizer
        for optimizer in optimizers.values()
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for entry, value in load_tensors(folder / "optimizer.safetensors").items():
        name, key = entry.rsplit(":", 1)
        parameter = parameters[name]
        value = value if key == "step" else value.to(parameter.device)
        owners[id(parameter)].state[parameter][key] = value
    return load_counters(folder)


def load_counters(folder: Path) -> Progress:
    """The counters of a checkpoint."""
    return Progress(**read_json(folder / "progress.json"))
