"""Splits: content belongs to exactly one, and the smallest allowed worlds have some of each."""

import itertools

import numpy as np
import pytest

from slowwave.tasks.depo import MIN_COMPACT_NODES
from slowwave.tasks.depo.task import cycle_hash
from slowwave.tasks.draws import SPLITS, Integers, Words, belongs_to, draw_in_split, keyed_hash
from slowwave.tasks.rule110 import MIN_WIDTH
from slowwave.tasks.rule110.task import state_hash


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
