"""The weight-holding primitives: what runs in the compute dtype and what stays wide."""

import torch

from numerics import TOLERANCE, assert_close
from slowwave.models.linear import Linear, RMSNorm


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_linear_is_a_product_in_the_compute_dtype() -> None:
    linear = Linear(6, 4)
    x = draw(2, 3, 6)
    expected = torch.einsum("bti,oi->bto", x, linear.weight)
    assert_close(linear(x), expected, 1e-5)
    linear.compute_dtype = torch.bfloat16
    out = linear(x)
    assert out.dtype == torch.bfloat16
    assert linear.weight.dtype == torch.float32
    assert_close(out, expected, TOLERANCE[torch.bfloat16])
    out.sum().backward()
    assert linear.weight.grad is not None
    assert linear.weight.grad.dtype == torch.float32


def test_rms_norm_scales_to_unit_mean_square() -> None:
    norm = RMSNorm(6)
    out = norm(draw(2, 3, 6).bfloat16())
    assert out.dtype == torch.float32
    assert_close(out.square().mean(-1), torch.ones(2, 3), 1e-5)
    with torch.no_grad():
        norm.weight.mul_(3)
    assert_close(norm(draw(2, 3, 6).bfloat16()), 3 * out, 1e-5)
