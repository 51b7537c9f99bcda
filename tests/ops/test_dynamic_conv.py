"""The dynamic convolution: against a loop, in pieces shorter than its kernel, around padding."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from numerics import TOLERANCE, assert_close
from slowwave.ops.convolution import dynamic_conv, short_conv

WIDTH, CHANNELS = 4, 5


def draw(B: int, T: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """x (B, T, C), kernels (B, T, C, w) and a tail (B, w-1, C) that is not zero."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(B, T, CHANNELS), (B, T, CHANNELS, WIDTH), (B, WIDTH - 1, CHANNELS)]
    x, kernels, tail = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return x, kernels, tail


def token_by_token(x: Tensor, kernels: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    """The definition: out[t] = sum over w of kernels[t, :, w] x[t - (width - 1) + w]."""
    history = [tail[:, i] for i in range(WIDTH - 1)]
    outs: list[Tensor] = []
    for t in range(x.shape[1]):
        history.append(x[:, t])
        weighed = (kernels[:, t, :, w] * history[t + w] for w in range(WIDTH))
        outs.append(sum(weighed, torch.zeros(())))
    return torch.stack(outs, dim=1), torch.stack(history[len(history) - WIDTH + 1 :], dim=1)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("T", [1, 2, 3, 4, 9])
def test_is_the_definition(T: int, dtype: torch.dtype) -> None:
    tensors = [tensor.to(dtype) for tensor in draw(2, T)]
    out, tail = dynamic_conv(*tensors)
    expected_out, expected_tail = token_by_token(*(tensor.double() for tensor in tensors))
    assert_close(out, expected_out, TOLERANCE[dtype])
    assert_close(tail, expected_tail, TOLERANCE[dtype])
    assert out.dtype == tail.dtype == dtype


def test_one_kernel_for_all_tokens_is_the_short_convolution() -> None:
    x, kernels, tail = draw(2, 9)
    kernel = kernels[0, 0]
    mask = torch.arange(18).view(2, 9) % 4 != 1
    for masks in (None, mask):
        out, new_tail = dynamic_conv(x, kernel.expand_as(kernels), tail, masks)
        expected_out, expected_tail = short_conv(x, kernel, tail, masks)
        assert_close(out, expected_out, 1e-12)
        assert torch.equal(new_tail, expected_tail)


@given(cuts=st.sets(st.integers(1, 11)))
def test_pieces_carry_the_tail(cuts: set[int]) -> None:
    x, kernels, tail = draw(2, 12)
    expected_out, expected_tail = dynamic_conv(x, kernels, tail)
    outs: list[Tensor] = []
    for start, stop in itertools.pairwise([0, *sorted(cuts), 12]):
        out, tail = dynamic_conv(x[:, start:stop], kernels[:, start:stop], tail)
        outs.append(out)
    assert_close(torch.cat(outs, dim=1), expected_out, 1e-12)
    assert torch.equal(tail, expected_tail)


@settings(max_examples=50)
@given(rows=st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=2, max_size=2))
def test_masked_tokens_are_skipped_wherever_they_stand(rows: list[list[bool]]) -> None:
    x, kernels, tail = draw(2, 9)
    mask = torch.tensor(rows)
    out, new_tail = dynamic_conv(x, kernels, tail, mask)
    for b in range(2):
        real = (x[b : b + 1, mask[b]], kernels[b : b + 1, mask[b]], tail[b : b + 1])
        expected_out, expected_tail = dynamic_conv(*real)
        assert_close(out[b : b + 1, mask[b]], expected_out, 1e-12)
        assert torch.equal(new_tail[b : b + 1], expected_tail)


def test_a_masked_call_leaves_the_tail_bit_identical() -> None:
    x, kernels, tail = draw(2, 5)
    out, new_tail = dynamic_conv(x, kernels, tail, torch.zeros(2, 5, dtype=torch.bool))
    assert torch.equal(new_tail, tail)
    assert out.isfinite().all()


@pytest.mark.parametrize("T", [2, 6])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_match_finite_differences(T: int, masked: bool) -> None:
    mask = torch.arange(T)[None] % 3 != 1 if masked else None

    def convolve(x: Tensor, kernels: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
        return dynamic_conv(x, kernels, tail, mask)

    assert torch.autograd.gradcheck(convolve, [tensor.requires_grad_() for tensor in draw(1, T)])


def test_inputs_are_not_mutated() -> None:
    tensors = draw(2, 6)
    before = [tensor.clone() for tensor in tensors]
    dynamic_conv(*tensors, torch.tensor([[True, False] * 3] * 2))
    for tensor, copy in zip(tensors, before, strict=True):
        assert torch.equal(tensor, copy)
