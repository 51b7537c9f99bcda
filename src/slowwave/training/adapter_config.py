"""How an adapter is trained; torch-free."""

from __future__ import annotations

import dataclasses
import math

from slowwave.config import Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterConfig(Config):
    """How an adapter is trained."""

    rank: int = 16
    """Of the change of every matrix."""
    steps: int = 2000
    """Optimizer steps, one conversation each."""
    lr: float = 1e-3
    """Peak learning rate of AdamW."""
    warmup_steps: int = 30
    """Steps of linear warm-up; the rate then falls as a cosine to a tenth."""
    clip_norm: float = 1.0
    """Largest norm of all gradients together."""
    least_told: int = 3
    """Things that a conversation tells, at least."""
    most_told: int = 12
    """Things that a conversation tells, at most."""
    most_talk: int = 48
    """Exchanges of small talk in a conversation, at most."""
    repeats: int = 2
    """How often each told thing is asked for."""
    unknown: int = 4
    """Questions about what was not told."""
    noted: int = 2
    """Things that are told in place of a question, and are to be noted."""
    small_talk: int = 512
    """Exchanges of small talk: what users say and what the model replies before it is trained."""
    anchors: int = 4
    """Of these in a step, whose reply is held to that of the model without adapter or memory."""
    anchor_weight: float = 1.0
    """Weight of these in the loss."""
    validate: int = 16
    """Conversations of each validation."""
    validate_every: int = 200
    """Steps between validations."""
    seed: int = 0
    """Draws conversations and fresh weights."""

    def __post_init__(self) -> None:
        at_least_one = ("rank", "steps", "warmup_steps", "repeats", "validate", "validate_every")
        for name in (*at_least_one, "least_told"):
            if getattr(self, name) < 1:
                raise ValueError(f"adapter.{name} is {getattr(self, name)}; use 1 or more")
        for name in ("most_talk", "unknown", "noted", "anchors", "anchor_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"adapter.{name} is {getattr(self, name)}; use 0 or more")
        for name in ("lr", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"adapter.{name} is {getattr(self, name)}; use a positive number")
        if self.most_told < self.least_told:
            raise ValueError(
                f"adapter.most_told is {self.most_told} with adapter.least_told "
                f"{self.least_told}; use as many or more"
            )
