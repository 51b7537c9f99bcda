"""The comparison that all other tests rest on can fail."""

import math

import pytest
import torch

from numerics import TOLERANCE, assert_close, relative_rmse


def test_relative_rmse() -> None:
    expected = torch.tensor([3.0, 4.0])
    assert relative_rmse(torch.tensor([3.0, 4.5]), expected) == pytest.approx(0.1)
    assert relative_rmse(1e9 * expected, 1e9 * expected) == 0.0
    assert relative_rmse(1e-9 * torch.tensor([3.0, 4.5]), 1e-9 * expected) == pytest.approx(0.1)


def test_zeros_equal_only_zeros() -> None:
    zeros = torch.zeros(3)
    assert relative_rmse(zeros, zeros) == 0.0
    assert math.isinf(relative_rmse(torch.full((3,), 1e-30), zeros))


def test_small_differences_of_large_numbers_are_seen_in_float64() -> None:
    expected = torch.tensor([1e8], dtype=torch.float64)
    assert relative_rmse(expected + 1e-4, expected) == pytest.approx(1e-12, rel=1e-2)


@pytest.mark.parametrize(
    ("actual", "message"),
    [
        ([1.0, 2.01], "relative RMSE 4.472e-03 is over the tolerance 1e-03"),
        ([1.0, math.nan], "1 of 2 values are NaN or infinite"),
        ([math.inf, math.nan], "2 of 2 values are NaN or infinite"),
        ([[1.0, 2.0]], r"shape \(1, 2\) differs from the expected \(2,\)"),
        ([1.0], r"shape \(1,\) differs from the expected \(2,\)"),
    ],
)
def test_assert_close_fails(actual: list[float], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_close(torch.tensor(actual), torch.tensor([1.0, 2.0]), 1e-3)


def test_an_expected_nan_is_the_fault_of_the_test() -> None:
    nan = torch.tensor([math.nan])
    with pytest.raises(AssertionError, match="mend the test"):
        assert_close(nan, nan, 1.0)


def test_assert_close_passes_within_the_tolerance() -> None:
    assert_close(torch.tensor([1.0, 2.001]), torch.tensor([1.0, 2.0]), 1e-3)


def test_the_contract() -> None:
    promised = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}
    assert promised == TOLERANCE
