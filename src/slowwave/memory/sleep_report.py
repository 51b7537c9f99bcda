"""What a sleep did, and what it cost."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from pydantic import ConfigDict
from torch import Tensor

from slowwave.config import Many
from slowwave.memory.verdict import Verdict
from slowwave.state import MemoryState
from slowwave.storage.memory_file import MOST_TOKENS

Trigger = Literal["full", "asked", "idle"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SleepReport:
    """One sleep of a session; of a rejected one, what was tried.

    Raises ValueError if a count is negative, or larger than any.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    trigger: Trigger
    """The window was full, somebody asked for it, or nobody had said anything for a while."""
    number: int
    """Of this sleep among all of the stream, from 1. One that was called for and rejected never
    was, so the next has its number again."""
    tokens: int
    """Tokens in the window that was slept on."""
    passes: int
    """N, all passes counted."""
    milliseconds: float
    bytes_before: int
    """Size of the state with its full window."""
    bytes_after: int
    """Size of the state that the session goes on with."""
    changes: Many[float]
    """For every recurrent layer |S_after - S_before| / |S_before|, in Frobenius norms."""
    pass_changes: Many[Many[float]] = ()
    """For passes 2 to N and every recurrent layer |S_n - S_(n-1)| / |S_(n-1)|, where pass n left
    S_n; also where pass n began elsewhere (`Passes.between_passes` = reset, frozen; a coda). Empty
    in what was recorded before there was a gate."""
    verdict: Verdict | None = None
    """What the gate decided; None without a gate."""

    def __post_init__(self) -> None:
        counts = (self.number, self.tokens, self.passes, self.bytes_before, self.bytes_after)
        if not (min(counts) >= 0 and max(counts) <= MOST_TOKENS):
            raise ValueError(f"a count of sleep {self.number} cannot be")

    @property
    def is_rejected(self) -> bool:
        """Whether the gate refused it."""
        return self.verdict is not None and self.verdict.outcome == "rejected"

    @property
    def is_undone(self) -> bool:
        """Whether the session goes on as if it had not been called for."""
        return self.is_rejected and self.trigger != "full"

    @property
    def num_evicted(self) -> int:
        """Tokens that left the window."""
        return 0 if self.is_undone else self.tokens


def measure_changes(before: MemoryState, after: MemoryState) -> tuple[float, ...]:
    """`measure_change` of every recurrent layer."""
    pairs = zip(before.fast_weights, after.fast_weights, strict=True)
    return tuple(measure_change(old, new) for old, new in pairs)


def measure_change(old: Tensor, new: Tensor) -> float:
    """|new - old| / |old| of two tensors of one shape; 0 where both are zero.

    The largest number there is where that is none: no JSON holds NaN or infinity.
    """
    tiny = torch.finfo(torch.float32).tiny  # keeps the quotient finite
    change = (new - old).norm() / old.norm().clamp(min=tiny)
    return float(change.nan_to_num(nan=torch.finfo(change.dtype).max))
