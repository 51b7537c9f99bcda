"""Tiny products and solves equal the plain ones, whichever way they take."""

import itertools

import pytest
import torch
from torch import Tensor

from numerics import assert_close
from slowwave.ops.linear import FEW_ROWS, small_matmul, solve_unit_lower

AROUND_FEW = (1, FEW_ROWS, FEW_ROWS + 1)


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("M", "K", "N"), list(itertools.product(AROUND_FEW, repeat=3)))
def test_small_matmul_is_the_product(M: int, K: int, N: int) -> None:
    factors = [draw(2, 3, M, K).requires_grad_(), draw(2, 3, K, N, seed=1).requires_grad_()]
    cotangent = draw(2, 3, M, N, seed=2)
    actual, expected = small_matmul(*factors), torch.einsum("abij,abjk->abik", *factors)
    assert_close(actual, expected, 1e-12)
    for gradients in zip(
        torch.autograd.grad(actual, factors, cotangent),
        torch.autograd.grad(expected, factors, cotangent),
        strict=True,
    ):
        assert_close(*gradients, 1e-12)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("M", range(1, FEW_ROWS + 4))
def test_solve_unit_lower_inverts_the_strict_lower_part_alone(M: int, transpose: bool) -> None:
    leaves = [draw(2, 3, M, M).requires_grad_(), draw(2, 3, M, 5, seed=1).requires_grad_()]
    cotangent = draw(2, 3, M, 5, seed=2)
    actual = solve_unit_lower(*leaves, transpose=transpose)
    unit_lower = leaves[0].tril(-1) + torch.eye(M, dtype=torch.float64)
    expected = torch.linalg.inv(unit_lower.mT if transpose else unit_lower) @ leaves[1]
    assert_close(actual, expected, 1e-12)
    for gradients in zip(
        torch.autograd.grad(actual, leaves, cotangent, allow_unused=True, materialize_grads=True),
        torch.autograd.grad(expected, leaves, cotangent),
        strict=True,
    ):
        assert_close(*gradients, 1e-12)
