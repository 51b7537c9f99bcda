"""Choice and fits of attention matching: what must hold whatever is drawn."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from numerics import assert_close
from slowwave.ops.compaction import (
    LEAST_WEIGHT,
    MOST_WEIGHT,
    choose_best,
    fit_values,
    fit_weights,
    measure_spread,
    score_entries,
    solve_within,
)

SIZE = 5


def draw_attention(n: int, J: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Of n queries to J keys, and to as many elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(n, 2 * J, generator=generator, dtype=torch.float64)
    return scores.softmax(-1)[:, :J].to(dtype)


def draw_values(J: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(J, SIZE, generator=generator, dtype=torch.float64).to(dtype)


def descend(gram: Tensor, wanted: Tensor, lower: float, upper: float) -> Tensor:
    """The specification of `solve_within`: one x after another to its best, until none moves."""
    x = torch.full_like(wanted, lower)
    for _ in range(20_000):
        before = x.clone()
        for i in range(len(x)):
            rest = gram[i] @ x - gram[i, i] * x[i]
            x[i] = ((wanted[i] - rest) / gram[i, i]).clamp(lower, upper)
        if (x - before).abs().max() < 1e-15:
            return x
    raise AssertionError("coordinate descent has not come to an end")


@settings(max_examples=40)
@given(t=st.integers(1, 8), n=st.integers(1, 12), seed=st.integers(0, 99))
@example(t=8, n=2, seed=50)  # where block pivoting goes round in circles
def test_bounded_squares_are_what_coordinate_descent_finds(t: int, n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, t, generator=generator, dtype=torch.float64)
    gram = rows.mT @ rows + 0.1 * torch.eye(t, dtype=torch.float64)
    wanted = 3 * torch.randn(t, generator=generator, dtype=torch.float64)
    solved = solve_within(gram, wanted, 0.2, 1.5)
    assert_close(solved, descend(gram, wanted, 0.2, 1.5), 1e-8)


def test_bounded_squares_have_the_gradient_of_what_is_free() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    gram = rows.mT @ rows + torch.eye(4, dtype=torch.float64)
    wanted = torch.tensor([9.0, -9.0, 4.0, 3.0], dtype=torch.float64, requires_grad=True)
    solved = solve_within(gram, wanted, 0.1, 1.0)
    assert {0.1, 1.0} < set(solved.tolist()), "some are at their bounds, and some are not"
    torch.autograd.gradcheck(lambda each: solve_within(gram, each, 0.1, 1.0), wanted)


@settings(max_examples=40)
@given(
    n=st.integers(1, 30),
    J=st.integers(1, 9),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_all_candidates_are_recovered(n: int, J: int, seed: int, dtype: torch.dtype) -> None:
    attention, values = draw_attention(n, J, seed, dtype), draw_values(J, seed, dtype)
    share = attention.sum(1)
    weights = fit_weights(attention, share)
    assert_close(weights, torch.ones_like(weights), 1e-9 if dtype == torch.float64 else 1e-3)
    fitted = fit_values(attention, share, torch.ones_like(weights), attention @ values, values)
    assert_close(fitted, values, 1e-9 if dtype == torch.float64 else 1e-3)


@settings(max_examples=40)
@given(n=st.integers(1, 40), J=st.integers(2, 12), seed=st.integers(0, 99), data=st.data())
def test_fits_bring_share_and_reads_nearer(n: int, J: int, seed: int, data: st.DataObject) -> None:
    """Fewer queries than entries, equal keys and queries that look elsewhere included."""
    attention, values = draw_attention(n, J, seed), draw_values(J, seed)
    attention[:, 1] = attention[:, 0]
    attention[0] = 0
    chosen = torch.arange(data.draw(st.integers(1, J)))
    kept, share, target = attention[:, chosen], attention.sum(1), attention @ values
    weights = fit_weights(kept, share)
    assert (weights >= LEAST_WEIGHT).all() and (weights <= MOST_WEIGHT).all()
    plain = kept.sum(1) - share
    assert (kept @ weights - share).square().sum() <= plain.square().sum() + 1e-12
    fitted = fit_values(kept, share, weights, target, values[chosen])
    weighted = kept * weights
    reads = weighted * (share / weighted.sum(1).clamp(min=1e-300))[:, None]
    before, after = (reads @ each - target for each in (values[chosen], fitted))
    assert after.square().sum() <= before.square().sum() + 1e-12
    assert fitted.isfinite().all()


def test_the_share_is_preserved_where_it_can_be() -> None:
    """Half of equal keys stand for two each."""
    attention = draw_attention(20, 4, 0)[:, [0, 0, 1, 1, 2, 2, 3, 3]]
    weights = fit_weights(attention[:, ::2], attention.sum(1))
    assert_close(weights, torch.full_like(weights, 2), 1e-2)


def test_values_are_fitted_by_least_squares() -> None:
    """A single query's entry reads what all candidates did together."""
    attention, values = draw_attention(1, 6, 0), draw_values(6, 0)
    share, target = attention.sum(1), attention @ values
    weights = share / attention[:, 0]
    fitted = fit_values(attention[:, :1], share, weights, target, values[:1])
    assert_close(share[:, None] * fitted, target, 1e-2)


@pytest.mark.parametrize("least", [0, 2])
def test_the_best_of_all_heads_are_chosen(least: int) -> None:
    scores = [torch.tensor([1.0, 9, 8, 7]), torch.tensor([0.1, 0.3, 0.2]), torch.tensor([5.0])]
    chosen = [each.tolist() for each in choose_best(scores, 5, least=least)]
    assert chosen == {0: [[0, 1, 2, 3], [], [0]], 2: [[1, 2], [1, 2], [0]]}[least]


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(0, 6), min_size=1, max_size=5),
    count=st.integers(0, 20),
    least=st.integers(0, 3),
)
def test_budgets_are_kept(sizes: list[int], count: int, least: int) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = [torch.rand(size, generator=generator) for size in sizes]
    chosen = choose_best(scores, count, least=least)
    required = sum(min(least, size) for size in sizes)
    assert sum(map(len, chosen)) == max(required, min(count, sum(sizes)))
    for each, size in zip(chosen, sizes, strict=True):
        assert len(each) >= min(least, size)
        assert each.tolist() == sorted(set(each.tolist()))


def test_scores_of_queries() -> None:
    attention = torch.tensor([[0.6, 0.0], [0.0, 0.4], [0.0, 0.4], [0.0, 0.4]])
    assert score_entries(attention.log(), "max").tolist() == pytest.approx([0.6, 0.4])
    assert score_entries(attention.log(), "mean").tolist() == pytest.approx([0.15, 0.3])
    assert score_entries(attention.log(), "rms").tolist() == pytest.approx([0.3, 0.12**0.5])


def test_spread_is_what_a_matrix_makes_of_the_distance() -> None:
    values, matrix = draw_values(7, 0), draw_values(3, 1)
    center = values.mean(0)
    expected = ((values - center) @ matrix.mT).norm(dim=-1)
    assert_close(measure_spread(values, center, matrix.mT @ matrix), expected, 1e-12)
