"""Random numbers and splits: what every example is drawn with.

Numbers are counter-based: every word is a pure function of (key, index, counter). Nothing is
carried from draw to draw, so a row is the same whatever else is drawn beside it, and all rows of a
batch come from one vectorised call. Keys are hashed (BLAKE2b); each index then has a SplitMix64
sequence of its own (Steele, Lea and Flood, OOPSLA 2014).

A hash of what an example contains decides its split, train, validation or test. An index picks an
example inside a split and never the split itself, so no two splits can share content, however many
examples are drawn.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, MutableSequence, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from slowwave.tasks import TaskConfig

Words = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]
Item = TypeVar("Item")
Content = TypeVar("Content", np.int64, np.uint64)

SPLITS = ("train", "validation", "test")
MAX_INDEX = 2**62

_BUCKETS = {"test": (0, 1), "validation": (1, 2), "train": (2, 16)}  # of 16
_MAX_ATTEMPTS = 4096  # a row needs more with probability (15 / 16) ** 4096, below 1e-114

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)
_ALL_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)
_AT_ONCE = 256  # words that a stream draws ahead


def mix(words: Words) -> Words:
    """The SplitMix64 finaliser: a bijection of 64-bit words, of any shape."""
    words = (words ^ (words >> np.uint64(30))) * _MULTIPLIER_1
    words = (words ^ (words >> np.uint64(27))) * _MULTIPLIER_2
    return words ^ (words >> np.uint64(31))


def keyed_hash(values: Words, *parts: Any) -> Words:
    """Hashes words of any shape under a key; `parts` (what JSON can hold) make the key."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    digest = hashlib.blake2b(text.encode("ascii"), digest_size=16).digest()
    key = np.frombuffer(digest, dtype="<u8").astype(np.uint64)
    return mix(mix(values ^ key[0]) ^ key[1])


def draw_words(seeds: Words, counters: Words) -> Words:
    """Word number `counters` of the sequence that starts at `seeds`; the two shapes broadcast."""
    return mix(seeds + _GOLDEN * (counters + np.uint64(1)))


def counter(slots: npt.ArrayLike, attempts: npt.ArrayLike = 0) -> Words:
    """Counters for slots (below 2**32) of an attempt; the two shapes broadcast, to 1-D at least."""
    high = np.asarray(attempts, dtype=np.uint64) << np.uint64(32)
    return high | np.atleast_1d(np.asarray(slots, dtype=np.uint64))


def below(words: Words, bound: int | Integers) -> Integers:
    """Uniform integers 0..bound-1 from the upper half of each word; bias under bound / 2**32."""
    scaled = (words >> np.uint64(32)) * np.asarray(bound, dtype=np.uint64)
    return (scaled >> np.uint64(32)).astype(np.int64)


def unit_interval(words: Words) -> npt.NDArray[np.float64]:
    """Uniform float64 numbers in [0, 1), from the upper 53 bits of each word."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(words: Words, counts: Integers) -> Integers:
    """Random permutations along the last axis, one word per item.

    words: (..., n). counts: (...,), at most n. The first `counts` entries of the result (..., n)
    are a uniform permutation of 0..counts-1; counts..n-1 follow in order.
    """
    outside = np.arange(words.shape[-1]) >= counts[..., None]
    return np.argsort(np.where(outside, _ALL_ONES, words), axis=-1, kind="stable")


def take(values: Integers, positions: Integers) -> Integers:
    """The values at positions along the last axis; all other axes are the same, or broadcast."""
    return np.take_along_axis(values, positions, axis=-1)


class RandomStream:
    """Choices for one example, where one draw decides what the next is about: the words of
    `draw_words` in order, from the sequence that starts at `seed`, 0 to 2**64 - 1."""

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


def belongs_to(split: str, hashes: Words) -> Booleans:
    """Whether content with these hashes, of any shape, belongs to the split."""
    first, stop = _BUCKETS[split]
    bucket = hashes >> np.uint64(60)
    return (bucket >= np.uint64(first)) & (bucket < np.uint64(stop))


def check_rows(split: str, indices: npt.ArrayLike) -> Words:
    """Indices (B,) as words; raises ValueError unless they are integers in 0..2**62, and `split` is
    a known name."""
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; use train, validation or test")
    array = np.asarray(indices)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise ValueError(
            f"indices have shape {array.shape} and dtype {array.dtype}; "
            "give a list of one or more integers"
        )
    for index in (array.min(), array.max()):
        if not 0 <= index <= MAX_INDEX:
            raise ValueError(f"indices hold {index}; use 0 to 2**62")
    return array.astype(np.uint64)


def row_seeds(indices: Words, config: TaskConfig, split: str, purpose: str) -> Words:
    """One seed per index, (B,), for the draws of one purpose."""
    return keyed_hash(indices, _values(config), split, purpose)


def row_words(
    indices: Words, config: TaskConfig, split: str, purpose: str, num_slots: int
) -> Words:
    """Words (B, num_slots) for the draws of one purpose."""
    seeds = row_seeds(indices, config, split, purpose)
    return draw_words(seeds[:, None], counter(np.arange(num_slots)))


def draw_in_split(
    split: str,
    num_rows: int,
    propose: Callable[[Integers, Integers], tuple[npt.NDArray[Content], Words]],
) -> npt.NDArray[Content]:
    """Draws each row anew until its content belongs to the split; returns (num_rows, ...).

    propose(rows (M,), attempts (A,)) gives proposals (M, A, ...) and the hashes (M, A) of their
    content. A row takes its first attempt that belongs, so the size of A changes nothing.
    """
    first_bucket, stop_bucket = _BUCKETS[split]
    at_once = round(16 / (stop_bucket - first_bucket))
    rows = np.arange(num_rows)
    kept_rows: list[Integers] = []
    kept: list[npt.NDArray[Content]] = []
    start = 0
    while rows.size:
        assert start < _MAX_ATTEMPTS, f"the {split} split has no content; its config must refuse it"
        proposals, hashes = propose(rows, np.arange(start, start + at_once))
        inside = belongs_to(split, hashes)
        found = inside.any(axis=1)
        kept_rows.append(rows[found])
        kept.append(proposals[found, inside[found].argmax(axis=1)])
        rows = rows[~found]
        start += at_once
    order = np.argsort(np.concatenate(kept_rows), kind="stable")
    return np.concatenate(kept)[order]


@functools.cache
def _values(config: TaskConfig) -> dict[str, Any]:
    return {key: value for key, value in config.to_dict().items() if key not in config.unseeded}
