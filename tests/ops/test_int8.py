"""Matrices of int8 numbers: what they lose, and products by every path."""

import pytest
import torch

from numerics import assert_close
from slowwave.ops.int8 import BLOCK, Int8Matrix, expand, int8_linear, quantize
from slowwave.ops.linear import ONEDNN_ROWS


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def spell_out(matrix: Int8Matrix, columns: int) -> torch.Tensor:
    """The definition, column by column, in float64."""
    scales = [matrix.scales[:, j // BLOCK].double() for j in range(columns)]
    return torch.stack([matrix.numbers[:, j] * scale for j, scale in enumerate(scales)], dim=1)


@pytest.mark.parametrize("columns", [1, 31, 32, 33, 576])
def test_nothing_is_further_off_than_half_a_step(columns: int) -> None:
    weight = draw(7, columns)
    weight[2] = 0
    weight[3, 0] = 1e-30
    matrix = quantize(weight)
    error = (spell_out(matrix, columns) - weight).abs()
    steps = matrix.scales.repeat_interleave(BLOCK, dim=1)[:, :columns]
    assert (error <= steps * 0.5001).all()
    assert not spell_out(matrix, columns)[2].any()
    assert matrix.numbers.dtype == torch.int8 and matrix.numbers.abs().max() == 127


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("columns", [1, 31, 32, 33, 576])
@pytest.mark.parametrize("rows", [0, 1, 3, ONEDNN_ROWS - 1, ONEDNN_ROWS, 40])
def test_products_are_those_of_the_matrix(rows: int, columns: int, grad: bool) -> None:
    x, matrix = draw(2, rows, columns)[0], quantize(draw(11, columns))
    exact = spell_out(matrix, columns)
    with torch.set_grad_enabled(grad):
        assert_close(expand(matrix, columns), exact, 1e-7)
        product = int8_linear(x, matrix)
    assert product.dtype == torch.float32
    assert_close(product, x.double() @ exact.T, 1e-5)


@torch.no_grad()
def test_many_rows_of_a_matrix() -> None:
    """No multiple of what a thread takes."""
    x, matrix = draw(3, 200), quantize(draw(1003, 200))
    assert_close(int8_linear(x, matrix), x.double() @ spell_out(matrix, 200).T, 1e-5)


@torch.no_grad()
def test_other_sizes_and_dtypes_are_refused() -> None:
    numbers, scales = quantize(draw(4, 64))
    with pytest.raises(RuntimeError, match="another size"):
        int8_linear(draw(1, 32), Int8Matrix(numbers, scales))
    with pytest.raises(RuntimeError, match="scale a row"):
        int8_linear(draw(1, 64), Int8Matrix(numbers, scales[:, :1]))
    with pytest.raises(RuntimeError, match="must be int8"):
        int8_linear(draw(1, 64), Int8Matrix(numbers.short(), scales))
