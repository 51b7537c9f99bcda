"""Counter-based random numbers: every word is a pure function of (key, index, counter).

Nothing is carried from draw to draw, so a row is the same whatever else is drawn beside it, and
all rows of a batch come from one vectorised call. Keys are hashed (BLAKE2b); each index then has a
SplitMix64 sequence of its own (Steele, Lea and Flood, OOPSLA 2014).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)
_ALL_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)


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
