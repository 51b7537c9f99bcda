"""How tokens are drawn; torch-free."""

from __future__ import annotations

import dataclasses
import math

from slowwave.config import Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling(Config):
    """What is drawn from a model's logits; the same seed at the same place draws the same."""

    temperature: float = 0.0
    """Divides the logits; 0 takes the likeliest token."""
    top_k: int = 0
    """Draws among the likeliest so many tokens; 0 is all."""
    top_p: float = 1.0
    """Draws among the likeliest tokens that together have this probability (arXiv 1904.09751)."""
    seed: int = 0
    """Another seed gives another reply."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}; use 0 (greedy) or more")
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}; use 0 (all tokens) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; use a probability in (0, 1]")

    def change(
        self,
        *,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> Sampling:
        """The same but for what is given; raises ValueError if that is unfit."""
        given = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
        changes = {name: value for name, value in given.items() if value is not None}
        return Sampling.from_dict(self.to_dict() | changes) if changes else self
