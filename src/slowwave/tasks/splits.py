"""Train, validation and test: a hash of what an example contains decides where it belongs.

An index picks an example inside a split and never the split itself, so no two splits can share
content, however many examples are drawn.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from slowwave.tasks.config import TaskConfig
from slowwave.tasks.random_bits import Booleans, Integers, Words, keyed_hash

SPLITS = ("train", "validation", "test")

_BUCKETS = {"test": (0, 1), "validation": (1, 2), "train": (2, 16)}  # of 16

MAX_INDEX = 2**62

# Fields that seed nothing, as they say how what is drawn is laid out in tokens.
_UNSEEDED = ("padding", "counting", "told_every", "tokenizer")

_MAX_ATTEMPTS = 4096  # a row needs more with probability (15 / 16) ** 4096, below 1e-114

Content = TypeVar("Content", np.int64, np.uint64)


def belongs_to(split: str, hashes: Words) -> Booleans:
    """Whether content with these hashes, of any shape, belongs to the split."""
    first, stop = _BUCKETS[split]
    bucket = hashes >> np.uint64(60)
    return (bucket >= np.uint64(first)) & (bucket < np.uint64(stop))


def check_split(split: str) -> None:
    """Raises ValueError unless `split` is a known name."""
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; use train, validation or test")


def check_indices(indices: npt.ArrayLike) -> Words:
    """Indices (B,) as words; raises ValueError unless they are integers in 0..2**62."""
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
        assert start < _MAX_ATTEMPTS, f"the {split} split has no content; config.py must refuse it"
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
    return {key: value for key, value in config.to_dict().items() if key not in _UNSEEDED}
