"""Norms: eps where fla has it, results wide."""

from collections.abc import Iterator

import pytest
import torch

from numerics import TOLERANCE, assert_close
from slowwave.ops.norm import l2_norm, log_sum, rms_norm, wide_dtype


@pytest.fixture(params=[False, True], ids=["compiled", "composed"], autouse=True)
def _both_ways(request: pytest.FixtureRequest) -> Iterator[None]:
    """Without gradients the compiled norm is taken, with them the composed one."""
    with torch.set_grad_enabled(request.param):
        yield


def test_l2_norm_has_eps_inside_the_root() -> None:
    """`F.normalize` would clamp the norm instead, and make any short vector a unit one."""
    x = torch.tensor([3e-4, 4e-4], dtype=torch.float64)
    assert_close(l2_norm(x, eps=1e-6), x / (25e-8 + 1e-6) ** 0.5, 1e-12)
    assert torch.equal(l2_norm(torch.zeros(3)), torch.zeros(3))


def test_rms_norm_has_eps_inside_the_root() -> None:
    x = torch.tensor([3e-4, 4e-4], dtype=torch.float64)
    weight = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert_close(rms_norm(x, weight, 1e-6), x / (12.5e-8 + 1e-6) ** 0.5 * weight, 1e-12)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(1, 1), (3, 70), (2, 40, 33), (0, 5)])
def test_rms_norm_is_its_definition(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)
    weight = torch.randn(shape[-1], generator=generator)
    strided = torch.cat([x, x], dim=-1)[..., : shape[-1]]
    wide = x.double()
    expected = wide / (wide.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight.double()
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for out in (rms_norm(x, weight, 1e-5), rms_norm(strided, weight, 1e-5)):
        assert_close(out, expected, tolerance)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_norms_are_computed_and_returned_wide(dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    wide = wide_dtype(dtype)
    assert wide == (torch.float64 if dtype == torch.float64 else torch.float32)
    for out in (l2_norm(x), rms_norm(x, torch.ones(5, dtype=dtype), 1e-6)):
        assert out.dtype == wide
    norms = l2_norm(x).square().sum(-1)
    assert_close(norms, torch.ones(2, 3), 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 15, 16, 17, 700])
@pytest.mark.parametrize("shift", [0, 300, -300])
def test_log_sums(shift: float, size: int, dtype: torch.dtype) -> None:
    """Of rows whose exponentials would overflow, or vanish."""
    generator = torch.Generator().manual_seed(0)
    x = 4 * torch.randn(2, 3, size, generator=generator, dtype=torch.float64) + shift
    actual = log_sum(x.to(dtype))
    assert actual.dtype == dtype
    assert_close(actual, x.logsumexp(-1), 1e-12 if dtype == torch.float64 else 1e-6)
