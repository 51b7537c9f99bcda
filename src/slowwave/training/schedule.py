"""What happens at which step: the eviction, what learns, and how fast.

The paper's recipe for sliding windows (section 3) warms up before the whole model learns: the new
recurrent layers alone, and with several passes under hard eviction. All of it follows from the step
alone, so a run goes on in the stage where it stopped. Steps count from 0.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from slowwave.models.backbone import HybridLM
from slowwave.models.mixers.recurrent import RecurrentLayer
from slowwave.sleep.config import Passes, SleepConfig
from slowwave.training.config import TrainConfig


def sleep_at(step: int, sleep: SleepConfig, config: TrainConfig) -> SleepConfig:
    """How a step is slept: under hard eviction in the first stage, then as `sleep` says."""
    if step >= config.first_stage_steps:
        return sleep
    consolidator = sleep.consolidator
    if isinstance(consolidator, Passes):
        consolidator = dataclasses.replace(consolidator, kept_cache="last_pass")
    return dataclasses.replace(sleep, eviction="all", consolidator=consolidator, sinks=0)


def freeze_at(step: int, model: HybridLM, config: TrainConfig) -> None:
    """Lets those parameters have gradients that a step trains, and no others.

    What has no gradient is not touched by the optimizers, weight decay included.
    """
    everything = step >= config.first_stage_steps or config.first_stage_trains == "all"
    trained = {id(parameter) for parameter in recurrent_parameters(model).values()}
    for parameter in model.parameters():
        parameter.requires_grad_(everything or id(parameter) in trained)


def recurrent_parameters(model: HybridLM) -> dict[str, nn.Parameter]:
    """By name, those of the recurrent layers and of the norms before them; no feed-forward ones."""
    places = [name for name, m in model.named_modules() if isinstance(m, RecurrentLayer)]
    norms = [name.removesuffix("mixer") + "mixer_norm" for name in places]
    owned = tuple(f"{name}." for name in (*places, *norms))
    return {name: p for name, p in model.named_parameters() if name.startswith(owned)}


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
