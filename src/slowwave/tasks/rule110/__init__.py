"""Rule 110: read some states of a cellular automaton, then say how a cell of each comes out."""

from __future__ import annotations

import dataclasses
from typing import Literal

from slowwave.tasks import TaskConfig

MIN_WIDTH = 6  # narrower worlds leave a split without content of its own
MAX_WIDTH = 64  # a state is one 64-bit word


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule110Config(TaskConfig):
    """Predict one cell of each of several cellular-automaton states, some steps ahead."""

    name: Literal["rule110"] = "rule110"
    """Selects this task."""
    width: int = 24
    """Cells of a state, on a ring; also the tokens of a state."""
    num_states: int = 4
    """Independent states in a stream; all are asked about at its end."""
    steps: int = 8
    """Steps t of Rule 110 between what is read and what is asked; 0 is plain recall."""

    def __post_init__(self) -> None:
        self.require(
            MIN_WIDTH <= self.width <= MAX_WIDTH, "width", f"use {MIN_WIDTH} to {MAX_WIDTH} cells"
        )
        self.require(self.num_states >= 1, "num_states", "use 1 or more")
        self.require(self.steps >= 0, "steps", "use 0 (recall) or more")
