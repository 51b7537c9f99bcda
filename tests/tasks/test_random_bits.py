"""Counter-based random numbers: uniform, independent of company, and the same for ever."""

import numpy as np
import pytest

from slowwave.tasks.draws import (
    Words,
    below,
    counter,
    draw_words,
    keyed_hash,
    permutation,
    unit_interval,
)


def words(num_rows: int, num_slots: int, key: str = "key") -> Words:
    seeds = keyed_hash(np.arange(num_rows, dtype=np.uint64), key)
    return draw_words(seeds[:, None], counter(np.arange(num_slots)))


def chi_square(counts: np.ndarray) -> float:
    """The statistic in standard deviations from its mean, for equally likely cells."""
    expected = counts.sum() / counts.size
    degrees = counts.size - 1
    return (((counts - expected) ** 2).sum() / expected - degrees) / (2 * degrees) ** 0.5


def test_words_are_pinned() -> None:
    """Recorded runs name their examples by index: other words would change what they saw."""
    assert [hex(word) for word in words(2, 2).ravel().tolist()] == [
        "0xa5b99d943c0233d3",
        "0x7c97f7a7ffa3a95a",
        "0x9e0a0c646eb05579",
        "0xb6bf14eb6e4d797f",
    ]


def test_every_bit_is_fair() -> None:
    bits = words(1000, 100)[..., None] >> np.arange(64, dtype=np.uint64) & np.uint64(1)
    shares = bits.reshape(-1, 64).mean(axis=0)
    assert abs(shares - 0.5).max() < 4.5 * 0.5 / 100_000**0.5


@pytest.mark.parametrize("neighbour", ["index", "slot", "attempt", "key"])
def test_neighbours_are_independent(neighbour: str) -> None:
    seeds = keyed_hash(np.arange(50_001, dtype=np.uint64), "key")
    first = draw_words(seeds, counter(0))[:-1]
    second = {
        "index": draw_words(seeds, counter(0))[1:],
        "slot": draw_words(seeds, counter(1))[:-1],
        "attempt": draw_words(seeds, counter(0, 1))[:-1],
        "key": words(50_001, 1, "other key")[:-1, 0],
    }[neighbour]
    share = np.unpackbits((first ^ second).view(np.uint8)).mean()
    assert abs(share - 0.5) < 4.5 * 0.5 / (64 * 50_000) ** 0.5


@pytest.mark.parametrize("bound", [1, 2, 3, 10, 50, 2500])
def test_integers_are_uniform(bound: int) -> None:
    drawn = below(words(1000, 100), bound)
    assert 0 <= drawn.min() <= drawn.max() < bound
    if bound > 1:
        assert abs(chi_square(np.bincount(drawn.ravel(), minlength=bound))) < 4.5


def test_unit_interval_is_uniform() -> None:
    drawn = unit_interval(words(1000, 100))
    assert 0 <= drawn.min() <= drawn.max() < 1
    assert abs(chi_square(np.histogram(drawn, bins=100, range=(0, 1))[0])) < 4.5


@pytest.mark.parametrize(("size", "count"), [(4, 4), (6, 4)])
def test_permutations_are_uniform(size: int, count: int) -> None:
    drawn = permutation(words(24_000, size), np.full(24_000, count))
    assert (drawn[:, count:] == np.arange(count, size)).all()
    _, counts = np.unique(drawn[:, :count], axis=0, return_counts=True)
    assert counts.size == 24
    assert abs(chi_square(counts)) < 4.5
