"""A linear probe finds what is linear in the features, and nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from slowwave.lab.probe import Samples, probe_accuracy

Splits = tuple[Samples, Samples, Samples]


def _draw(seed: int, features: int, *, examples: int = 400) -> list[Tensor]:
    """Noise (E, F) for each split."""
    generator = torch.Generator().manual_seed(seed)
    shape = (examples, features)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3)]


def _label(noise: list[Tensor]) -> Splits:
    """Bits: of a sum of features, of their product, and one that is nearly always 1."""
    train, validation, test = (
        Samples(
            x,
            torch.stack([x[:, 0] + x[:, 1] > 0, x[:, 0] * x[:, 1] > 0, x[:, 2] > -1.3], 1).double(),
        )
        for x in noise
    )
    return train, validation, test


def test_a_sum_is_found_and_a_product_is_not() -> None:
    total, product, _ = probe_accuracy(*_label(_draw(0, 8))).tolist()
    assert total > 0.9
    assert product == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("features", [3, 900])
def test_features_that_tell_nothing_leave_the_likelier_bit(features: int) -> None:
    """Also where there are more features than examples, which could be learned by heart."""
    train, validation, test = _label(_draw(1, 3))
    told = [
        s._replace(features=x)
        for s, x in zip((train, validation, test), _draw(2, features), strict=True)
    ]
    majority = (train.bits.mean(0) > 0.5).double()
    floor = (test.bits == majority).double().mean(0)
    assert floor[2] > 0.85
    found = probe_accuracy(*told)
    assert found[2] == pytest.approx(floor[2].item(), abs=0.03)
    assert found[:2].tolist() == pytest.approx([0.5, 0.5], abs=0.08)


@given(seed=st.integers(0, 1000), constant=st.floats(-1e3, 1e3))
def test_more_features_than_examples_are_solved_alike(seed: int, constant: float) -> None:
    """Features that are the same in all examples change the system to solve, not the probe."""
    splits = _label(_draw(seed, 4, examples=40))
    fill = torch.full((40, 50), constant, dtype=torch.float64)
    wide = (s._replace(features=torch.cat([s.features, fill], 1)) for s in splits)
    assert torch.equal(probe_accuracy(*wide), probe_accuracy(*splits))


@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3), shift=st.floats(-10, 10))
def test_units_do_not_matter(seed: int, scale: float, shift: float) -> None:
    splits = _label(_draw(seed, 4, examples=40))
    other = (s._replace(features=s.features * scale + shift) for s in splits)
    assert torch.equal(probe_accuracy(*other), probe_accuracy(*splits))


def test_features_that_do_not_vary_at_all() -> None:
    splits = _label(_draw(3, 4))
    nothing = (s._replace(features=torch.zeros_like(s.features)) for s in splits)
    floor = (splits[2].bits == (splits[0].bits.mean(0) > 0.5)).double().mean(0)
    assert torch.equal(probe_accuracy(*nothing), floor)


def test_the_penalty_is_chosen_without_the_test_split() -> None:
    """Other test bits change the scores of those bits alone."""
    train, validation, test = _label(_draw(4, 30, examples=60))
    flipped = test._replace(bits=1 - test.bits)
    found, other = (probe_accuracy(train, validation, t) for t in (test, flipped))
    assert torch.allclose(found + other, torch.ones(3, dtype=torch.float64))
