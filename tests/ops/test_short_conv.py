"""The short convolution: against a loop, in pieces shorter than its kernel, around padding."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from numerics import TOLERANCE, assert_close
from slowwave.ops.convolution import short_conv

WIDTH, CHANNELS = 4, 5


def draw(B: int, T: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """x (B, T, C), kernel (C, w) and a tail (B, w-1, C) that is not zero."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(B, T, CHANNELS), (CHANNELS, WIDTH), (B, WIDTH - 1, CHANNELS)]
    x, kernel, tail = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return x, kernel, tail


def loop(x: Tensor, kernel: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    """The definition: out[t] = sum over w of kernel[:, w] x[t - (width - 1) + w]."""
    history = [tail[:, i] for i in range(WIDTH - 1)]
    outs: list[Tensor] = []
    for t in range(x.shape[1]):
        history.append(x[:, t])
        outs.append(sum((kernel[:, w] * history[t + w] for w in range(WIDTH)), torch.zeros(())))
    return torch.stack(outs, dim=1), torch.stack(history[len(history) - WIDTH + 1 :], dim=1)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("T", [1, 2, 3, 4, 9])
def test_is_the_loop(T: int, dtype: torch.dtype) -> None:
    tensors = [tensor.to(dtype) for tensor in draw(2, T)]
    out, tail = short_conv(*tensors)
    expected_out, expected_tail = loop(*(tensor.double() for tensor in tensors))
    assert_close(out, expected_out, TOLERANCE[dtype])
    assert_close(tail, expected_tail, TOLERANCE[dtype])
    assert out.dtype == tail.dtype == dtype


@given(cuts=st.sets(st.integers(1, 11)))
def test_pieces_carry_the_tail(cuts: set[int]) -> None:
    """A call shorter than the kernel must shift the old tail, not overwrite its end."""
    x, kernel, tail = draw(2, 12)
    expected_out, expected_tail = short_conv(x, kernel, tail)
    bounds = [0, *sorted(cuts), 12]
    outs: list[Tensor] = []
    for start, stop in itertools.pairwise(bounds):
        out, tail = short_conv(x[:, start:stop], kernel, tail)
        outs.append(out)
    assert_close(torch.cat(outs, dim=1), expected_out, 1e-12)
    assert torch.equal(tail, expected_tail)


@settings(max_examples=50)
@given(rows=st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=2, max_size=2))
def test_masked_tokens_are_skipped_wherever_they_stand(rows: list[list[bool]]) -> None:
    x, kernel, tail = draw(2, 9)
    mask = torch.tensor(rows)
    out, new_tail = short_conv(x, kernel, tail, mask)
    for b in range(2):
        packed = (x[b : b + 1, mask[b]], kernel, tail[b : b + 1])
        expected_out, expected_tail = short_conv(*packed)
        assert torch.equal(out[b : b + 1, mask[b]], expected_out)
        assert torch.equal(new_tail[b : b + 1], expected_tail)


def test_a_masked_call_leaves_the_tail_bit_identical() -> None:
    x, kernel, tail = draw(2, 5)
    out, new_tail = short_conv(x, kernel, tail, torch.zeros(2, 5, dtype=torch.bool))
    assert torch.equal(new_tail, tail)
    assert out.isfinite().all()


@pytest.mark.parametrize("T", [2, 6])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_match_finite_differences(T: int, masked: bool) -> None:
    mask = torch.arange(T)[None] % 3 != 1 if masked else None

    def convolve(x: Tensor, kernel: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
        return short_conv(x, kernel, tail, mask)

    assert torch.autograd.gradcheck(convolve, [tensor.requires_grad_() for tensor in draw(1, T)])


def test_inputs_are_not_mutated() -> None:
    tensors = draw(2, 6)
    before = [tensor.clone() for tensor in tensors]
    short_conv(*tensors, torch.tensor([[True, False] * 3] * 2))
    for tensor, copy in zip(tensors, before, strict=True):
        assert torch.equal(tensor, copy)
