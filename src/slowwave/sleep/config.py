"""When and how a model sleeps; torch-free."""

from __future__ import annotations

import dataclasses
from typing import Literal

from slowwave.config import Config

Recirculate = Literal["hidden", "normed", "normed+embedding", "embedding"]
LossWindows = Literal["paper", "sleep_after"]


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
    loss_windows: LossWindows = "paper"
    """What becomes in training of a full window with loss: paper gives it one pass and evicts it,
    sleep_after scores it on pass 1 and then sleeps on it as on any other, as reading a stream does.
    Text, where every window has loss, needs sleep_after."""

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"sleep.window is {self.window}; use 1 or more tokens")
        if self.passes < 1:
            raise ValueError(f"sleep.passes is {self.passes}; use 1 (plain eviction) or more")
