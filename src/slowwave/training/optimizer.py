"""Which parameter is trained by what, and how fast when."""

from __future__ import annotations

import torch
from torch import nn

from slowwave.models.backbone import HybridLM
from slowwave.models.linear import Linear
from slowwave.training.config import TrainConfig
from slowwave.training.muon import Muon
from slowwave.training.precision import iteration_dtype


def split_parameters(model: HybridLM) -> dict[str, dict[str, nn.Parameter]]:
    """Sorts all parameters by name into "muon", "adamw" and "adamw_no_decay".

    Muon takes the matrices of the blocks (section 3 of the paper), those that make the kernels of a
    Jet layer among them. Embedding and head go to AdamW with decay; norms, convolutions, A_log and
    dt_bias to AdamW without.
    """
    groups: dict[str, dict[str, nn.Parameter]] = {"muon": {}, "adamw": {}, "adamw_no_decay": {}}
    outer = {id(model.embedding.weight), id(model.head.weight)}
    body = {id(m.weight) for m in model.modules() if isinstance(m, Linear)} - outer
    for name, parameter in model.named_parameters():
        if id(parameter) in body:
            groups["muon"][name] = parameter
        elif id(parameter) in outer:
            groups["adamw"][name] = parameter
        else:
            groups["adamw_no_decay"][name] = parameter
    return groups


def make_optimizers(model: HybridLM, config: TrainConfig) -> dict[str, torch.optim.Optimizer]:
    """Muon and AdamW at their peak rates, with the defaults of the recipe that the paper cites.

    Muon takes fused matrices apart, as their layers say (`Linear.sizes`).
    """
    groups = split_parameters(model)
    adamw = torch.optim.AdamW(
        [
            {"params": list(groups["adamw"].values()), "weight_decay": config.weight_decay},
            {"params": list(groups["adamw_no_decay"].values()), "weight_decay": 0.0},
        ],
        lr=config.adamw_lr,
        betas=(0.9, 0.95),
    )
    sizes = {id(m.weight): m.sizes for m in model.modules() if isinstance(m, Linear)}
    muon = Muon(
        [(weight, sizes[id(weight)]) for weight in groups["muon"].values()],
        lr=config.muon_lr,
        weight_decay=config.weight_decay,
        dtype=iteration_dtype(model.device),
    )
    return {"muon": muon, "adamw": adamw}


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """Share of the peak rate at `step` (0-based): linear warm-up, stable, linear decay.

    The last step of a warm-up has all of it, the last step of the decay `min_lr_ratio`. What
    learns, or under which eviction, changes with the stage, so each has a warm-up.
    """
    since = step - config.first_stage_steps if step >= config.first_stage_steps else step
    warmth = min(1.0, (since + 1) / max(1, config.warmup_steps))
    decay_steps = round(config.decay_fraction * config.steps)
    decayed = step + 1 - (config.steps - decay_steps)  # steps of the decay, this one included
    if decayed <= 0:
        return warmth
    return min(warmth, 1 - (1 - config.min_lr_ratio) * decayed / decay_steps)


def set_learning_rates(
    optimizers: dict[str, torch.optim.Optimizer], step: int, config: TrainConfig
) -> float:
    """Sets every group's rate for `step`; returns the share of the peak."""
    factor = learning_rate_factor(step, config)
    peaks = {"muon": config.muon_lr, "adamw": config.adamw_lr}
    for name, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            group["lr"] = peaks[name] * factor
    return factor
