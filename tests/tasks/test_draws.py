"""Draws: uniform, independent of company and the same for ever, without a seam between draws of a
stream; content belongs to exactly one split, and the smallest allowed worlds have some of each."""

import itertools
from collections import Counter

import numpy as np
import pytest

from slowwave.tasks.depo import MIN_COMPACT_NODES
from slowwave.tasks.depo.task import cycle_hash
from slowwave.tasks.draws import (
    SPLITS,
    Integers,
    RandomStream,
    Words,
    belongs_to,
    below,
    counter,
    draw_in_split,
    draw_words,
    keyed_hash,
    permutation,
    unit_interval,
)
from slowwave.tasks.rule110 import MIN_WIDTH
from slowwave.tasks.rule110.task import state_hash


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


def test_choices_are_the_words_in_order() -> None:
    """More of them than are drawn ahead at once."""
    for seed in (0, 1, 2**64 - 1):
        words = draw_words(np.array([seed], dtype=np.uint64), counter(np.arange(600)))
        stream = RandomStream(seed)
        assert [stream.below(2**32) for _ in range(600)] == [word >> 32 for word in words.tolist()]


def test_streams_differ_by_seed_and_repeat() -> None:
    def head(seed: int) -> tuple[int, ...]:
        stream = RandomStream(seed)
        return tuple(stream.below(1000) for _ in range(8))

    assert len({head(seed) for seed in range(500)}) == 500
    assert head(7) == head(7)


@pytest.mark.parametrize("bound", [1, 2, 3, 7])
def test_choices_are_uniform(bound: int) -> None:
    stream = RandomStream(5)
    counts = Counter(stream.below(bound) for _ in range(7000))
    assert set(counts) == set(range(bound))
    assert max(abs(count - 7000 / bound) for count in counts.values()) < 4.5 * 7000**0.5 / 2


def test_shuffling_is_uniform() -> None:
    stream = RandomStream(6)
    seen: Counter[tuple[str, ...]] = Counter()
    for _ in range(6000):
        items = ["a", "b", "c"]
        stream.shuffle(items)
        seen[tuple(items)] += 1
    assert len(seen) == 6
    assert max(abs(count - 1000) for count in seen.values()) < 4.5 * 1000**0.5


def test_choosing_and_coins() -> None:
    stream = RandomStream(8)
    assert {stream.choose("abc") for _ in range(100)} == set("abc")
    heads = sum(stream.is_heads() for _ in range(4000))
    assert abs(heads - 2000) < 4.5 * 1000**0.5


def test_what_happens_has_its_share() -> None:
    stream = RandomStream(5)
    for share in (0.0, 0.1, 0.5, 1.0):
        count = sum(stream.happens(share) for _ in range(4000))
        assert count / 4000 == pytest.approx(share, abs=4.5 * (share * (1 - share) / 4000) ** 0.5)


def test_every_hash_belongs_to_one_split() -> None:
    hashes = keyed_hash(np.arange(160_000, dtype=np.uint64), "content")
    inside = np.stack([belongs_to(split, hashes) for split in SPLITS])
    assert (inside.sum(axis=0) == 1).all()
    np.testing.assert_allclose(inside.mean(axis=1), [14 / 16, 1 / 16, 1 / 16], atol=0.002)


def test_the_narrowest_states_fill_every_split() -> None:
    hashes = state_hash(np.arange(2**MIN_WIDTH, dtype=np.uint64), MIN_WIDTH)
    assert all(belongs_to(split, hashes).sum() >= 4 for split in SPLITS)


def test_the_smallest_cycles_fill_every_split() -> None:
    for size in range(2, MIN_COMPACT_NODES + 1):
        cycles = np.array(
            [
                (nodes[0], *rest)
                for nodes in itertools.combinations(range(MIN_COMPACT_NODES), size)
                for rest in itertools.permutations(nodes[1:])
            ]
        )
        hashes = cycle_hash("compact", cycles, np.full(len(cycles), size))
        # Only training has cycles of fewer than `nodes` nodes.
        needed = SPLITS if size == MIN_COMPACT_NODES else ("train",)
        assert all(belongs_to(split, hashes).sum() >= 4 for split in needed)


def test_a_cycle_has_one_hash_wherever_it_starts() -> None:
    cycle = np.array([3, 1, 4, 0, 5, 2])
    turned = np.stack([np.roll(cycle, turn) for turn in range(6)])
    assert len(np.unique(cycle_hash("compact", turned, np.full(6, 6)))) == 1
    longer = np.array([[3, 1, 4, 0, 5, 2], [1, 4, 3, 2, 5, 0], [4, 3, 1, 0, 2, 5]])
    assert len(np.unique(cycle_hash("compact", longer, np.full(3, 3)))) == 1
    assert len(np.unique(cycle_hash("compact", longer, np.full(3, 6)))) == 3
    backwards = turned[:, ::-1]
    assert (
        cycle_hash("compact", backwards, np.full(6, 6))[0]
        != cycle_hash("compact", turned, np.full(6, 6))[0]
    )


@pytest.mark.parametrize("split", SPLITS)
def test_a_row_takes_its_first_attempt_that_belongs(split: str) -> None:
    def content(row: int, attempt: int) -> Words:
        return np.array([1000 * row + attempt], dtype=np.uint64)

    def propose(rows: Integers, attempts: Integers) -> tuple[Words, Words]:
        proposals = (1000 * rows[:, None] + attempts).astype(np.uint64)
        return proposals, keyed_hash(proposals, "content")

    drawn = draw_in_split(split, 100, propose)
    for row in range(100):
        first = next(
            attempt
            for attempt in itertools.count()
            if belongs_to(split, keyed_hash(content(row, attempt), "content")).item()
        )
        assert drawn[row] == 1000 * row + first
