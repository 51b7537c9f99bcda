"""What training reads and computes."""

from __future__ import annotations

from slowwave.models.config import ModelConfig
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.objective import Batch, plan_batch
from slowwave.training.config import TrainConfig
from slowwave.training.schedule import sleep_at


def count_tokens(batch: Batch) -> int:
    """Distinct input tokens; passes are not counted twice."""
    questions = 0 if batch.questions is None else batch.questions.inputs.numel()
    return batch.stream.inputs.numel() + questions


def run_flops(batch: Batch, sizes: ModelConfig, sleep: SleepConfig, config: TrainConfig) -> int:
    """FLOPs of all steps of a run, both stages, if every batch is like `batch`."""
    first, steps = config.first_stage_steps, config.steps
    plans = plan_batch(batch, sleep_at(0, sleep, config)), plan_batch(batch, sleep)
    begun, whole = (plan.training_flops(sizes) for plan in plans)
    return first * begun + (steps - first) * whole
