"""What a sleep did, and what it cost."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor

from slowwave.state import MemoryState

Trigger = Literal["full", "asked", "idle"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SleepReport:
    """One sleep of a session."""

    trigger: Trigger
    """The window was full, somebody asked for it, or nobody had said anything for a while."""
    number: int
    """Of this sleep among all of the stream, from 1."""
    tokens: int
    """Tokens in the window that was slept on."""
    passes: int
    """N, all passes counted."""
    milliseconds: float
    bytes_before: int
    """Size of the state with its full window."""
    bytes_after: int
    changes: tuple[float, ...]
    """For every recurrent layer |S_after - S_before| / |S_before|, in Frobenius norms."""


def report_sleep(
    before: MemoryState, after: MemoryState, *, trigger: Trigger, passes: int, milliseconds: float
) -> SleepReport:
    """The report of a sleep from the states around it."""
    return SleepReport(
        trigger=trigger,
        number=after.num_sleeps,
        tokens=before.window_fill,
        passes=passes,
        milliseconds=milliseconds,
        bytes_before=before.nbytes,
        bytes_after=after.nbytes,
        changes=measure_changes(before, after),
    )


def measure_changes(before: MemoryState, after: MemoryState) -> tuple[float, ...]:
    """`measure_change` of every recurrent layer."""
    pairs = zip(before.fast_weights, after.fast_weights, strict=True)
    return tuple(measure_change(old, new) for old, new in pairs)


def measure_change(old: Tensor, new: Tensor) -> float:
    """|new - old| / |old| of two tensors of one shape; 0 where both are zero."""
    tiny = torch.finfo(torch.float32).tiny  # keeps the quotient finite
    return float((new - old).norm() / old.norm().clamp(min=tiny))
