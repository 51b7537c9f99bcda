"""Queries, keys and values: the compiled way against the single steps."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from numerics import TOLERANCE, assert_close
from slowwave.ops import native
from slowwave.ops.convolution import short_conv
from slowwave.ops.gated_mix import delta_inputs
from slowwave.ops.norm import l2_norm


def draw(B: int, T: int, *, heads: int, K: int, values: int, taps: int = 4) -> list[Tensor]:
    """x (B, T, C), kernel (C, w) and a tail that is not zero, float64."""
    generator = torch.Generator().manual_seed(0)
    channels = heads * K + values
    shapes = [(B, T, channels), (channels, taps), (B, taps - 1, channels)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def cast(inputs: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    x, kernel, tail = inputs
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return [x.to(dtype), kernel.to(wide), tail.to(dtype)]


def step_by_step(
    x: Tensor, kernel: Tensor, tail: Tensor, *, num_values: int, key_dim: int
) -> tuple[Tensor, Tensor, Tensor]:
    mixed, new_tail = short_conv(x, kernel, tail)
    keys, values = F.silu(mixed).split([x.shape[2] - num_values, num_values], dim=-1)
    return l2_norm(keys.unflatten(-1, (-1, key_dim))), values, new_tail


def gradients(outputs: tuple[Tensor, ...], leaves: list[Tensor]) -> tuple[Tensor, ...]:
    """Of a sum of all outputs, every number weighed otherwise."""
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(out.shape, generator=generator, dtype=torch.float64) for out in outputs]
    return torch.autograd.grad(
        outputs, leaves, [w.to(out) for w, out in zip(weights, outputs, strict=True)]
    )


def check(B: int, T: int, heads: int, K: int, values: int, taps: int, dtype: torch.dtype) -> None:
    given = cast(draw(B, T, heads=heads, K=K, values=values, taps=taps), dtype)
    exact = [tensor.double().requires_grad_() for tensor in given]
    leaves = [tensor.requires_grad_() for tensor in given]
    actual = delta_inputs(*leaves, num_values=values, key_dim=K)
    expected = step_by_step(*exact, num_values=values, key_dim=K)
    for a, b in zip(actual, expected, strict=True):
        assert_close(a, b, TOLERANCE[dtype])
    assert actual[0].dtype == leaves[1].dtype
    assert actual[1].dtype == actual[2].dtype == dtype
    for a, b in zip(gradients(actual, leaves), gradients(expected, exact), strict=True):
        assert_close(a, b, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@settings(max_examples=25, deadline=None)
@given(
    B=st.integers(1, 19),
    T=st.integers(1, 9),
    heads=st.integers(1, 3),
    K=st.integers(4, 35),  # smaller heads: what a norm leaves of a gradient is mostly rounding
    values=st.integers(1, 40),
    taps=st.integers(2, 5),
)
def test_values_and_gradients_are_those_of_the_single_steps(
    B: int, T: int, heads: int, K: int, values: int, taps: int, dtype: torch.dtype
) -> None:
    check(B, T, heads, K, values, taps, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_without_the_extension(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "is_ready", lambda: False)
    check(3, 5, 2, 8, 6, 4, dtype)


def test_padding_is_skipped() -> None:
    x, kernel, tail = draw(2, 6, heads=2, K=4, values=3)
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[:, 2] = False
    actual = delta_inputs(x, kernel, tail, num_values=3, key_dim=4, mask=mask)
    kept = delta_inputs(x[:, mask[0]], kernel, tail, num_values=3, key_dim=4)
    for a, b in zip(actual[:2], kept[:2], strict=True):
        assert_close(a[:, mask[0]], b, 1e-12)
    assert_close(actual[2], kept[2], 1e-12)


def test_large_inputs_have_finite_gradients() -> None:
    """Where e^-x overflows, SiLU and its slope are zero, not NaN."""
    given = cast(draw(1, 5, heads=1, K=16, values=16), torch.float32)
    leaves = [(1e4 * given[0]).requires_grad_(), given[1].requires_grad_(), given[2]]
    outputs = delta_inputs(*leaves, num_values=16, key_dim=16)
    for grad in gradients(outputs[:2], leaves[:2]):
        assert grad.isfinite().all()


def test_number_of_threads_does_not_matter() -> None:
    leaves = [x.requires_grad_() for x in cast(draw(40, 5, heads=2, K=8, values=6), torch.float32)]

    def compute() -> tuple[Tensor, ...]:
        return gradients(delta_inputs(*leaves, num_values=6, key_dim=8), leaves)

    expected = compute()
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        actual = compute()
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_torch_finds_nothing_wrong_with_the_operator() -> None:
    leaves = [x.requires_grad_() for x in cast(draw(2, 5, heads=2, K=8, values=6), torch.float32)]
    torch.library.opcheck(torch.ops.slowwave.delta_inputs.default, (*leaves, 16, 8))
