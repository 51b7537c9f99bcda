"""What one training step reads and computes."""

from __future__ import annotations

from slowwave.evaluation.evaluate import predict_flops
from slowwave.evaluation.flops import training_flops, unread_flops
from slowwave.models.config import ModelConfig
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.schedule import cut_training
from slowwave.tasks.base import Batch
from slowwave.training.config import TrainConfig
from slowwave.training.schedule import sleep_at


def count_tokens(batch: Batch) -> int:
    """Distinct input tokens; passes are not counted twice."""
    questions = 0 if batch.questions is None else batch.questions.inputs.numel()
    return batch.stream.inputs.numel() + questions


def run_flops(batch: Batch, model: ModelConfig, sleep: SleepConfig, config: TrainConfig) -> int:
    """FLOPs of all steps of a run, both stages, if every batch is like `batch`."""
    first, steps = config.first_stage_steps, config.steps
    whole = (steps - first) * step_flops(batch, model, sleep)
    return first * step_flops(batch, model, sleep_at(0, sleep, config)) + whole


def step_flops(batch: Batch, model: ModelConfig, sleep: SleepConfig) -> int:
    """FLOPs of a step on `batch`, forward and backward (see `evaluation.flops`).

    Frozen weights, whose gradients are not computed, are counted like others.
    """
    targets = batch.stream.targets
    unread = unread_flops(model, cut_training(targets, sleep), rows=len(targets), sleep=sleep)
    return training_flops(predict_flops(batch, model, sleep), unread)
