"""Attention over entries and window against its definition, in value and every gradient."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from numerics import TOLERANCE, assert_close
from slowwave.entries import CompactKeyValues
from slowwave.ops.attention import windowed_attention
from slowwave.ops.compact_attention import (
    FEW_TOKENS,
    compact_attention,
    compact_attention_reference,
    watched_attention,
)

SIZE = 6


def draw_memory(lengths: list[list[int]], dtype: torch.dtype, seed: int = 0) -> CompactKeyValues:
    """Entries of a batch, of each head as many as said."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.tensor(lengths)
    E = int(counts.sum(1).max())

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    B = len(lengths)
    place = torch.arange(E).expand(B, E)
    score = normal(B, E).float()
    return CompactKeyValues(
        keys=normal(B, E, SIZE),
        values=normal(B, E, SIZE),
        bias=normal(B, E),
        score=score,
        position=place,
        place=place,
        lengths=counts,
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@settings(max_examples=40)
@given(
    T=st.sampled_from([1, 3, FEW_TOKENS, FEW_TOKENS + 1, 40]),
    past=st.integers(0, 9),
    lengths=st.sampled_from(
        [[[3, 7]], [[1, 0]], [[0, 4], [5, 2]], [[2, 2], [0, 0], [1, 6]], [[4]], [[1, 2, 3]]]
    ),
    groups=st.integers(1, 3),
    is_masked=st.booleans(),
    scale=st.sampled_from([None, 0.3]),
)
def test_fast_equals_the_definition(
    dtype: torch.dtype,
    T: int,
    past: int,
    lengths: list[list[int]],
    groups: int,
    is_masked: bool,
    scale: float | None,
) -> None:
    B, heads, W = len(lengths), len(lengths[0]), past + T
    generator = torch.Generator().manual_seed(T + 10 * past)
    shapes = [(B, T, heads * groups, SIZE), (B, W, heads, SIZE), (B, W, heads, SIZE)]
    drawn = [torch.randn(*shape, generator=generator, dtype=dtype) for shape in shapes]
    mask = torch.arange(B * W).view(B, W) % 4 > 0 if is_masked else None
    memory = draw_memory(lengths, dtype)
    results: list[Tensor] = []
    gradients: list[tuple[Tensor, ...]] = []
    for attend, wide in ((compact_attention, dtype), (compact_attention_reference, torch.float64)):
        inputs = [
            each.to(wide, copy=True).requires_grad_()
            for each in (*drawn, memory.keys, memory.values, memory.bias)
        ]
        q, keys, values, *entries = inputs
        fields = dict(zip(("keys", "values", "bias"), entries, strict=True))
        kept = dataclasses.replace(memory, **fields)
        read = attend(q, keys, values, kept.heads(), mask, scale)
        cotangent = torch.randn(read.shape, generator=torch.Generator().manual_seed(1)).to(wide)
        results.append(read)
        gradients.append(torch.autograd.grad(read, inputs, cotangent))
    assert_close(results[0].double(), results[1], TOLERANCE[dtype])
    for fast, exact in zip(*gradients, strict=True):
        if fast.numel():
            assert_close(fast.double(), exact, TOLERANCE[dtype])


@pytest.mark.parametrize("grad", [False, True], ids=["fused", "explicit"])
@pytest.mark.parametrize("lengths", [[[3, 7]], [[0, 4], [5, 2]], [[0, 0]]], ids=str)
def test_watched_attention_says_what_it_divides_by(lengths: list[list[int]], grad: bool) -> None:
    """Attention to each key follows from its score and the sum: values that are one-hot show it."""
    B, T, W = len(lengths), 5, 8
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(B, T, 4, SIZE, generator=generator, dtype=torch.float64)
    keys, values = torch.randn(2, B, W, 2, SIZE, generator=generator, dtype=torch.float64)
    mask = torch.arange(B * W).view(B, W) % 5 > 0
    heads = draw_memory(lengths, torch.float64).heads()
    with torch.set_grad_enabled(grad):
        read, log_sums = watched_attention(q, keys, values, heads, mask)
    assert_close(read, compact_attention_reference(q, keys, values, heads, mask), 1e-12)
    ones = torch.ones_like(values)
    to_entries = [each._replace(values=torch.ones_like(each.values)) for each in heads]
    shares = compact_attention_reference(q, keys, torch.zeros_like(ones), to_entries, mask)
    for h, each in enumerate(heads):
        group = slice(2 * h, 2 * h + 2)
        scores = torch.einsum("bthd,bed->bthe", q[:, :, group], each.keys) * SIZE**-0.5
        attention = (scores + each.bias[:, None, None] - log_sums[:, :, group, None]).exp()
        assert_close(attention.sum(-1), shares[:, :, group, 0], 1e-12)


def test_an_entry_with_a_bias_stands_for_as_many_keys() -> None:
    """Three equal keys of the window do what one entry with bias log 3 does."""
    generator = torch.Generator().manual_seed(0)
    q, own, value, keys, values = (
        torch.randn(1, 1, 1, SIZE, generator=generator, dtype=torch.float64) for _ in range(5)
    )
    thrice = torch.cat([keys.expand(1, 3, 1, SIZE), own], dim=1)
    expected = windowed_attention(q, thrice, torch.cat([values.expand_as(thrice[:, :3]), value], 1))
    memory = draw_memory([[1]], torch.float64)
    bias = torch.full((1, 1), 3.0, dtype=torch.float64).log()
    entries = memory.heads()[0]._replace(keys=keys[:, :, 0], values=values[:, :, 0], bias=bias)
    assert_close(compact_attention(q, own, value, [entries]), expected, 1e-12)
