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
