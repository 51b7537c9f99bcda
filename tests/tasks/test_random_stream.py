"""Streams of choices: pure functions of the seed, uniform, and without a seam between draws."""

from collections import Counter

import numpy as np
import pytest

from slowwave.tasks.draws import RandomStream, counter, draw_words


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
def test_integers_are_uniform(bound: int) -> None:
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
