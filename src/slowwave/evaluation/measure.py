"""What figures and tables show of a score: exact match or, of text, bits per byte; torch-free."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, slots=True)
class Measure:
    """bytes_per_token: that of a run on text; None for tasks with right answers."""

    bytes_per_token: float | None = None

    @property
    def is_share(self) -> bool:
        """Whether it goes from 0 to 1, more being better; bits per byte have no top, and fewer are
        better."""
        return self.bytes_per_token is None

    @property
    def name(self) -> str:
        """What it is called on an axis."""
        return "exact match" if self.is_share else "bits per byte"

    def of(self, score: Mapping[str, float]) -> float:
        """Its value in a recorded score."""
        if self.bytes_per_token is None:
            return score["exact"]
        return score["loss"] / math.log(2) / self.bytes_per_token

    def show(self, value: float) -> str:
        """A value for people."""
        return f"{value:.1%}" if self.is_share else f"{value:.3f}"


SHARE = Measure()
