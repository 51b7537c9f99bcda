"""A stream of random choices for one example, where one draw decides what the next is about.

The words are those of `random_bits.draw_words`, taken in order; each stream is a pure function of
its seed.
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import Any, TypeVar

import numpy as np

from slowwave.tasks.random_bits import counter, draw_words

Item = TypeVar("Item")

_AT_ONCE = 256


class RandomStream:
    """Choices from the sequence that starts at `seed`, 0 to 2**64 - 1."""

    def __init__(self, seed: int) -> None:
        self._seed = np.array([seed], dtype=np.uint64)
        self._num_drawn = 0
        self._words: list[int] = []

    def below(self, bound: int) -> int:
        """A uniform integer 0..bound-1; bound at most 2**32, bias under bound / 2**32."""
        if not self._words:
            self._draw_ahead()
        return (self._words.pop() * bound) >> 32

    def is_heads(self) -> bool:
        """A fair coin."""
        return self.below(2) == 0

    def happens(self, share: float) -> bool:
        """True with this probability, to within 2**-32."""
        return self.below(2**32) < share * 2**32

    def choose(self, items: Sequence[Item]) -> Item:
        """One of the items, all equally likely."""
        return items[self.below(len(items))]

    def shuffle(self, items: MutableSequence[Any]) -> None:
        """A uniform permutation, in place."""
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]

    def _draw_ahead(self) -> None:
        slots = np.arange(self._num_drawn, self._num_drawn + _AT_ONCE)
        words = draw_words(self._seed, counter(slots)) >> np.uint64(32)
        self._words = words[::-1].tolist()
        self._num_drawn += _AT_ONCE
