"""How a model is trained; torch-free."""

from __future__ import annotations

import dataclasses
from typing import Literal

from slowwave.config import Config

Precision = Literal["auto", "float32", "bfloat16"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """Muon for body matrices, AdamW for the rest, warm-up / stable / decay."""

    steps: int = 1000
    """Optimizer steps of the whole schedule."""
    batch_size: int = 64
    """Examples a step."""
    muon_lr: float = 1e-2
    """Peak learning rate of Muon (body matrices, those that a weight fuses each by itself); a
    matrix with more rows than columns moves sqrt(rows / columns) as far."""
    adamw_lr: float = 2e-3
    """Peak learning rate of AdamW (embeddings, head, norms, convolutions, decays)."""
    weight_decay: float = 1e-4
    """Decoupled weight decay; none on norms, decays and convolutions."""
    warmup_steps: int = 20
    """Steps of linear warm-up, at the start of each stage; the last of them has the peak rate."""
    decay_fraction: float = 0.4
    """Last part of the run in which the rate falls linearly; with 0 it stays at its peak."""
    min_lr_ratio: float = 1e-3
    """Share of the peak rate that the decay leaves at the last step."""
    clip_norm: float = 1.0
    """Largest norm of all gradients together; metrics.jsonl has the norm before it is cut."""
    precision: Precision = "auto"
    """dtype of matrix products; master weights, fast weights, gates and logits stay float32. auto:
    bfloat16, or float32 where bfloat16 is slower, as on processors without instructions for it."""
    compile: bool = False
    """Compile the blocks, and on a CPU (where this needs a C++ compiler) the delta rule."""
    checkpoint_activations: bool = False
    """Recompute each pass in the backward pass: less memory, more time."""
    first_stage_fraction: float = 0.0
    """First part of the run, under hard eviction whatever sleep.eviction says: the paper's warm-up
    for sliding windows (section 3). Evaluations are under sleep.eviction throughout."""
    first_stage_trains: Literal["all", "recurrent"] = "all"
    """What learns in it: all weights, or (where others are pretrained) the recurrent layers'."""
    start_from: str | None = None
    """Folder of a finished run, whose weights training starts with and on whose tokens, FLOPs and
    seconds it counts on; fresh weights if not given."""
    seed: int = 0
    """Draws the initial weights and the order of the training examples."""
    log_every: int = 10
    """Steps between two losses in metrics.jsonl."""
    eval_every: int = 250
    """Steps between two evaluations; also after the last step."""
    eval_examples: int = 256
    """Validation examples of each evaluation during training."""
    test_examples: int | None = None
    """Test examples that the trained model is scored on; 1,024 if not given."""
    save_every: int = 250
    """Steps between two checkpoints; also after the last step, and when interrupted."""
    stop_at: float | None = None
    """Stop early once an evaluation's exact match over all groups reaches this share."""
    threads: int | None = None
    """CPU threads of torch; its own choice if not given."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "eval_every", "eval_examples"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} is {getattr(self, name)}; use 1 or more")
        for name in ("muon_lr", "adamw_lr", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"train.{name} is {getattr(self, name)}; use a positive number")
        for name in ("decay_fraction", "min_lr_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"train.{name} is {getattr(self, name)}; use 0 to 1")
        if not self.weight_decay >= 0:
            raise ValueError(f"train.weight_decay is {self.weight_decay}; use 0 or more")
        if self.stop_at is not None and not 0 <= self.stop_at <= 1:
            raise ValueError(f"train.stop_at is {self.stop_at}; use a share from 0 to 1")
        if not 0 <= self.first_stage_fraction < 1:
            raise ValueError(
                f"train.first_stage_fraction is {self.first_stage_fraction}; use 0 to below 1"
            )
        if self.first_stage_trains != "all" and not self.first_stage_steps:
            raise ValueError(
                f"train.first_stage_trains is {self.first_stage_trains}, but train.steps has no "
                "first stage; set train.first_stage_fraction, or use all"
            )
        if self.test_examples is not None and self.test_examples < 1:
            raise ValueError(f"train.test_examples is {self.test_examples}; use 1 or more")
        if self.save_every < 1:
            raise ValueError(f"train.save_every is {self.save_every}; use 1 or more")
        if self.warmup_steps < 0:
            raise ValueError(f"train.warmup_steps is {self.warmup_steps}; use 0 or more")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"train.threads is {self.threads}; use 1 or more, or leave it out")

    @property
    def first_stage_steps(self) -> int:
        """Steps of the first stage, 0 if there is none."""
        return round(self.first_stage_fraction * self.steps)
