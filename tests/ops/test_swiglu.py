"""The activation of a feed-forward layer, whichever way it is computed."""

import pytest
import torch
import torch.nn.functional as F

from numerics import TOLERANCE, assert_close
from slowwave.ops.norm import swiglu


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(2, 3, 10), (1, 40, 70), (0, 6), (2, 0, 6), (5, 2)])
def test_is_silu_of_the_gate_times_the_value(
    shape: tuple[int, ...], dtype: torch.dtype, grad: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    up = 5 * torch.randn(*shape, generator=generator, dtype=torch.float64)
    gate, value = up.chunk(2, dim=-1)
    with torch.set_grad_enabled(grad):
        out = swiglu(up.to(dtype))
        strided = swiglu(torch.cat([up, up], dim=-1).to(dtype)[..., : shape[-1]])
    assert out.dtype == dtype
    for actual in (out, strided):
        assert_close(actual, F.silu(gate) * value, TOLERANCE[dtype])


def test_extreme_gates_stay_finite_and_exact() -> None:
    gates = torch.tensor([-1e30, -200.0, -87.5, -1e-30, 0.0, 1e-30, 87.5, 200.0, 1e30])
    with torch.no_grad():
        out = swiglu(torch.cat([gates, torch.ones(9)]))
    assert_close(out, F.silu(gates.double()), 1e-5)
    assert out[:2].abs().max() < 1e-30


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_what_is_not_a_number_stays_visible(dtype: torch.dtype) -> None:
    up = torch.ones(2, 6, dtype=dtype)
    up[0, 1] = torch.nan
    with torch.no_grad():
        assert torch.equal(swiglu(up).isnan(), torch.tensor([[0, 1, 0], [0, 0, 0]]).bool())


def test_gradients_are_never_lost() -> None:
    up = torch.ones(3, 8, requires_grad=True)
    swiglu(up).sum().backward()
    assert up.grad is not None
