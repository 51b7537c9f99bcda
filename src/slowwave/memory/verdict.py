"""What a gate measured, and what it decided."""

from __future__ import annotations

import dataclasses
from typing import Literal

from pydantic import ConfigDict

from slowwave.config import Many

Outcome = Literal["accepted", "rejected", "accepted_unmeasured"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """What a memory knows. NLL is in nats per token; None where nothing could be measured."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    right: Many[bool] = ()
    """For every canary, whether the reply contains the answer."""
    canary_nll: Many[float] = ()
    """For every canary the mean NLL of the answer's tokens."""
    median_nll: float | None = None
    """Of all tokens of held-out text but the first of each."""
    mean_nll: float | None = None
    num_tokens: int = 0
    """How many these were."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a sleep that was tried, and why."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    outcome: Outcome
    """accepted_unmeasured: there was nothing to measure, or nothing to refuse."""
    refused: Measures | None = None
    """Of what the session goes on with if the sleep is refused: the memory as it was, or, of a full
    window, after one pass."""
    accepted: Measures | None = None
    """Of what it goes on with if the sleep is accepted."""
    reasons: Many[str] = ()
    """What led to a rejection, and what was not measured, a sentence each."""
    milliseconds: float = 0.0
    """What measuring and judging took."""
