"""GSM-Infinite: read an arithmetic word problem among distractors, answer with a bare number."""

from __future__ import annotations

import dataclasses
from typing import Literal

from slowwave.tasks import TaskConfig

# Of the names of a theme, the first belong to the core of a problem; the others are those that
# surface distractors go by.
NUM_CORE_NAMES = 24
NUM_OTHER_PLACES = 10
NUM_OTHER_ITEMS = 24

MAX_OPS = 16  # beyond it few problems keep all values below 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class GsmInfiniteConfig(TaskConfig):
    """Answer an arithmetic word problem whose statements come in any order, among distractors."""

    name: Literal["gsm_infinite"] = "gsm_infinite"
    """Selects this task."""
    grammar: Literal["compact", "words"] = "compact"
    """compact: one token for each name and sign. words: the words of the text, one token each."""
    themes: tuple[Literal["zoo", "school", "movies"], ...] = ("zoo", "school", "movies")
    """What the problems speak of; all are equally likely."""
    subset: Literal["medium", "hard"] = "medium"
    """medium: numbers of items, and their totals. hard: also averages per item."""
    mode: Literal["forward", "reverse", "mixed"] = "forward"
    """forward: what is asked follows from what is stated. reverse: its consequence is given, and it
    is asked. mixed: even odds."""
    ops: tuple[int, int] = (2, 8)
    """Fewest and most operations; uniform between."""
    places: int = 5
    """Most places of a problem without distractors."""
    items: int = 5
    """Most kinds of items of a problem without distractors."""
    question: Literal["first", "last"] = "first"
    """first: before the statements, in the context. last: after it, where the answer is given."""
    distractors: Literal["none", "surface", "blended"] = "none"
    """surface: statements without numbers about places and items of their own, as in the public
    benchmark. blended: in form and names like those that are needed."""
    length: tuple[int, int] = (0, 256)
    """Fewest and most tokens of a problem, question included; distractors are added up to a target
    that is uniform between."""
    context_tokens: int = 256
    """What every problem is padded to, on the left."""

    def __post_init__(self) -> None:
        low, high = self.ops
        fewest, most = self.length
        self.require(
            len(self.themes) > 0 and len(set(self.themes)) == len(self.themes),
            "themes",
            "name one or more, each once",
        )
        for name in ("places", "items"):
            value = getattr(self, name)
            self.require(1 <= value <= NUM_CORE_NAMES, name, f"use 1 to {NUM_CORE_NAMES}")
        self.require(1 <= low <= high, "ops", "use 1 or more, the fewest first")
        self.require(high <= MAX_OPS, "ops", f"use at most {MAX_OPS}")
        self.require(
            low >= 2 or self.subset == "hard",
            "ops",
            "use 2 or more, medium has no problems of 1 operation (hard has)",
        )
        self.require(
            2 * self.places * self.items * (2 if self.subset == "hard" else 1) >= high,
            "ops",
            f"use fewer, or more places and items than {self.places} and {self.items}",
        )
        self.require(0 <= fewest <= most, "length", "use 0 or more, the fewest first")
        self.require(
            fewest == 0 or self.distractors != "none",
            "length",
            "start it with 0, or choose distractors, which alone can make problems longer",
        )
        self.require(
            self.context_tokens >= most,
            "context_tokens",
            f"use the longest problem, {most}, or more",
        )
