"""The product with a weight matrix is the same whichever library takes it."""

import pytest
import torch
import torch.nn.functional as F

from numerics import TOLERANCE, assert_close
from slowwave.ops.linear import ONEDNN_ROWS, linear


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("rows", [0, 1, ONEDNN_ROWS - 1, ONEDNN_ROWS, 70])
def test_linear_is_the_product(rows: int, dtype: torch.dtype, grad: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, rows, 24, generator=generator, dtype=torch.float64)
    weight = torch.randn(10, 24, generator=generator, dtype=torch.float64)
    with torch.set_grad_enabled(grad):
        product = linear(x.to(dtype), weight.to(dtype))
        strided = linear(x.to(dtype).mT.contiguous().mT, weight.to(dtype))
    assert product.dtype == dtype
    for actual in (product, strided):
        assert_close(actual, F.linear(x, weight), TOLERANCE[dtype])


def test_gradients_are_never_lost() -> None:
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    weight = torch.ones(4, 8, requires_grad=True)
    linear(x, weight).sum().backward()
    assert weight.grad is not None
    assert_close(weight.grad, x.sum(0).expand(4, 8), 1e-5)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 7, 3), (2, 16, 5), (3, 40, 6), (15, 133, 700)])
def test_few_rows_of_any_size(sizes: tuple[int, int, int], dtype: torch.dtype) -> None:
    """No multiple of a vector, of the rows taken at once, or of what a thread takes."""
    rows, inner, columns = sizes
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, inner, generator=generator, dtype=torch.float64).to(dtype)
    weight = torch.randn(columns, inner, generator=generator, dtype=torch.float64).to(dtype)
    with torch.no_grad():
        actual = linear(x, weight)
    assert_close(actual, F.linear(x.double(), weight.double()), TOLERANCE[dtype])


def test_few_rows_of_other_dtypes_and_shapes_are_refused() -> None:
    with torch.no_grad(), pytest.raises(RuntimeError, match="one dtype"):
        linear(torch.ones(1, 8), torch.ones(4, 8, dtype=torch.float64))
    with torch.no_grad(), pytest.raises(RuntimeError, match="columns"):
        linear(torch.ones(1, 8), torch.ones(4, 7))
