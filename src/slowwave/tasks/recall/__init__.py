"""Recall: read facts over many windows, then say what was last told about a key."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from slowwave.tasks import TaskConfig
from slowwave.wording import describe_range

MIN_CONTENTS = 2**12  # values that the statements of a stream can take, all together
MAX_IDS = 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecallConfig(TaskConfig):
    """Give the newest value of a key that was told some windows ago, or say that it is unknown."""

    name: Literal["recall"] = "recall"
    """Selects this task."""
    unseeded: ClassVar[tuple[str, ...]] = ("told_every",)
    window: int = 32
    """Tokens L of a window; sleep.window must be the same."""
    windows: int = 8
    """Windows of a stream."""
    facts: int = 8
    """Statements "key value" in a window that tells any; filler takes the rest of its tokens."""
    told_every: int = 1
    """Of so many windows the first tells facts; the others are filler."""
    updates: int = 2
    """How many of them, after the first window, overwrite a fact of an earlier one, none twice."""
    keys: int = 64
    """Different keys; those of a stream are drawn anew for each."""
    values: int = 32
    """Different values."""
    distances: tuple[int, ...] = (1, 2, 4, 8)
    """How many windows ago a fact that is asked about was last told; 1 is the newest window."""
    questions: int = 32
    """Questions after the stream, each on its own copy of the state."""
    untold: float = 0.125
    """Share of questions about keys that were never told; "unknown" is right."""

    def __post_init__(self) -> None:
        for field in ("windows", "facts", "told_every", "questions"):
            self.require(getattr(self, field) >= 1, field, "use 1 or more")
        self.require(
            self.windows % self.told_every == 0,
            "told_every",
            f"use a divisor of windows = {self.windows}",
        )
        self.require(
            self.window >= 2 * self.facts,
            "window",
            f"use at least {2 * self.facts} tokens, two for each of {self.facts} facts",
        )
        self.require(
            0 <= 2 * self.updates < self.facts,
            "updates",
            f"{describe_range(0, (self.facts - 1) // 2)}: less than half of facts = {self.facts}",
        )
        self.require(0 <= self.untold < 1, "untold", "use a share from 0 to below 1")
        told = self.told_keys
        self.require(
            told + (self.untold > 0) <= self.keys <= MAX_IDS,
            "keys",
            f"{describe_range(told + (self.untold > 0), MAX_IDS)}: a stream tells {told}",
        )
        self.require(2 <= self.values <= MAX_IDS, "values", f"use 2 to {MAX_IDS}")
        self.require(
            told >= 12 or self.values**told >= MIN_CONTENTS,
            "values",
            f"use more, or more windows or facts: {told} keys with {self.values} values leave a "
            "split without streams of its own",
        )
        self.require(
            len(self.distances) >= 1
            and list(self.distances) == sorted(set(self.distances))
            and self.distances[0] >= 1
            and self.distances[-1] <= self.windows,
            "distances",
            f"use one or more numbers from 1 to windows = {self.windows}, in rising order",
        )
        self.require(
            all(distance % self.told_every == 0 for distance in self.distances),
            "distances",
            f"use multiples of told_every = {self.told_every}, no other window tells a fact",
        )

    @property
    def told_keys(self) -> int:
        """Keys that a stream tells; an update tells none that is new."""
        return self.telling_windows * (self.facts - self.updates) + self.updates

    @property
    def telling_windows(self) -> int:
        """Windows that tell facts."""
        return self.windows // self.told_every

    @property
    def own_window(self) -> int:
        return self.window
