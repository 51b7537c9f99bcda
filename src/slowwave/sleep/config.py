"""When and how a model sleeps; torch-free."""

from __future__ import annotations

import dataclasses
from typing import Literal

from slowwave.config import Config

Recirculate = Literal["hidden", "normed", "normed+embedding", "embedding"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SleepConfig(Config):
    """A window of L tokens, read N times when it is full, then evicted."""

    window: int = 20
    """Window length L in tokens."""
    passes: int = 1
    """N, all passes counted; 1 is plain eviction."""
    recirculate: Recirculate = "hidden"
    """What pass n reads: the raw hidden states of pass n-1 (the paper), those states normed, normed
    with the embeddings added again, or the embeddings alone (a control without recirculation)."""

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"sleep.window is {self.window}; use 1 or more tokens")
        if self.passes < 1:
            raise ValueError(f"sleep.passes is {self.passes}; use 1 (plain eviction) or more")
