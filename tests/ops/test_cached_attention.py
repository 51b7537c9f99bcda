"""Attention over long caches and compact entries: compiled, against the definition."""

import pytest
import torch
from torch import Tensor

from numerics import TOLERANCE, assert_close
from slowwave.entries import CompactKeyValues
from slowwave.ops.attention import windowed_attention
from slowwave.ops.cached_attention import (
    cached_attention,
    cached_attention_and_sum,
    cached_attention_reference,
)
from slowwave.ops.compact_attention import watched_attention
from slowwave.ops.norm import wide_dtype
from slowwave.state import Band

SCALE = 0.3

Inputs = tuple[Tensor, Tensor, Tensor]


def draw(B: int, W: int, H: int, kv_heads: int, size: int, T: int = 1) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    shapes = [(B, T, H, size), (B, W, kv_heads, size), (B, W, kv_heads, size)]
    q, keys, values = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return q, keys, values


def cast(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    q, keys, values = (each.to(dtype) for each in inputs)
    return q, keys, values


def draw_entries(lengths: list[list[int]], size: int) -> CompactKeyValues:
    generator = torch.Generator().manual_seed(1)
    B, E, kv_heads = len(lengths), max(sum(row) for row in lengths), len(lengths[0])
    entries = CompactKeyValues.empty(
        B, E, kv_heads, size, dtype=torch.float64, device=torch.device("cpu")
    )
    for tensor in (entries.keys, entries.values, entries.bias):
        tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
    entries.lengths.copy_(torch.tensor(lengths))
    return entries


def narrow(entries: CompactKeyValues, dtype: torch.dtype) -> CompactKeyValues:
    wide = wide_dtype(dtype)
    return entries.map(lambda tensor: tensor.to(wide) if tensor.is_floating_point() else tensor)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("reach", [None, 1, 70])
@pytest.mark.parametrize(
    ("T", "W"),
    [(1, 1), (1, 63), (1, 257), (1, 1100), (2, 2), (63, 63), (64, 64), (65, 300), (200, 330)],
)
@pytest.mark.parametrize(
    ("H", "kv_heads", "size"), [(3, 3, 6), (4, 2, 16), (7, 1, 40), (9, 3, 64), (10, 2, 80)]
)
@torch.no_grad()
def test_is_the_definition(
    H: int, kv_heads: int, size: int, T: int, W: int, reach: int | None, dtype: torch.dtype
) -> None:
    inputs = draw(2, W, H, kv_heads, size, T)
    expected = cached_attention_reference(*inputs, SCALE, reach=reach)
    actual = cached_attention(*cast(inputs, dtype), SCALE, reach=reach)
    assert actual.dtype == dtype
    assert_close(actual, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("T", "W"), [(1, 1), (1, 300), (70, 300), (3, 3)])
@pytest.mark.parametrize(
    "lengths", [[[0, 0], [1, 0]], [[5, 700], [90, 0]], [[64, 65], [300, 1]], [[2, 513], [257, 256]]]
)
@torch.no_grad()
def test_entries_of_heads_are_seen_with_their_biases(
    lengths: list[list[int]], T: int, W: int, dtype: torch.dtype
) -> None:
    """Uneven lengths, and rows that have fewer than others: what pads them is of no meaning."""
    inputs, entries = draw(2, W, 6, 2, 32, T), draw_entries(lengths, 32)
    expected = cached_attention_reference(*inputs, SCALE, entries=entries)
    for row, counts in enumerate(lengths):
        for tensor in (entries.keys, entries.values, entries.bias):
            tensor[row, sum(counts) :] = torch.nan
    actual = cached_attention(*cast(inputs, dtype), SCALE, entries=narrow(entries, dtype))
    assert_close(actual, expected, TOLERANCE[dtype])


@torch.no_grad()
def test_the_definition_is_attention_in_the_window() -> None:
    """Of all that precedes a token, and of the nearest alone, as torch computes it."""
    q, keys, values = draw(2, 90, 4, 2, 16, 30)
    for reach in (None, 20):
        band = None if reach is None else Band(reach, 0)
        expected = windowed_attention(q, keys, values, None, band, SCALE)
        actual = cached_attention_reference(q, keys, values, SCALE, reach=reach)
        assert_close(actual, expected, 1e-12)


@torch.no_grad()
def test_later_tokens_leave_no_trace() -> None:
    """Not even where their values are huge."""
    q, keys, values = (each.float() for each in draw(1, 200, 4, 2, 16, 100))
    alone = cached_attention(q[:, :50], keys[:, :150], values[:, :150], SCALE)
    assert_close(cached_attention(q, keys, values, SCALE)[:, :50], alone, 1e-6)
    values[:, 150:] *= 1e30
    assert_close(cached_attention(q, keys, values, SCALE)[:, :50], alone, 1e-6)


@torch.no_grad()
def test_a_view_of_a_cache_with_room() -> None:
    """Rows of the batch lie apart in a buffer that grows; queries lie beside keys and values."""
    for T in (1, 40):
        q, keys, values = (each.float() for each in draw(3, 700, 4, 2, 16, T))
        fused = torch.cat([q, q, q], dim=2)[:, :, 4:8]
        for seen in (slice(0, 400), slice(650, 700)):
            parts = keys[:, seen], values[:, seen]
            expected = cached_attention_reference(q, *parts, SCALE)
            assert_close(cached_attention(fused, *parts, SCALE), expected, 1e-5)


@pytest.mark.parametrize("dtype", TOLERANCE)
@torch.no_grad()
def test_what_attention_divides_by(dtype: torch.dtype) -> None:
    """The logarithms of the sums, of rows that have more entries and fewer."""
    (q, keys, values), entries = draw(2, 90, 6, 2, 16, 70), draw_entries([[5, 90], [70, 0]], 16)
    expected = watched_attention(q, keys, values, entries.heads(), None, SCALE)
    given = cast((q, keys, values), dtype)
    actual = cached_attention_and_sum(*given, SCALE, narrow(entries, dtype))
    for mine, other in zip(actual, expected, strict=True):
        assert_close(mine, other, TOLERANCE[dtype])


@pytest.mark.parametrize("T", [1, 5])
@torch.no_grad()
def test_great_scores_and_entries_that_nobody_sees(T: int) -> None:
    """Softmax stays finite, whichever piece has the greatest score; a bias of -inf hides."""
    q, keys, values = draw(1, 600, 2, 1, 8, T)
    entries = draw_entries([[100]], 8)
    entries.bias[0, :70] = -torch.inf
    for place in (0, 300, 599):
        high = keys.clone()
        high[:, place] = 200 * q[:, 0, :1]
        expected = cached_attention_reference(q, high, values, SCALE, entries=entries)
        assert_close(cached_attention(q, high, values, SCALE, entries=entries), expected, 1e-12)


@pytest.mark.parametrize("T", [1, 300])
@torch.no_grad()
def test_threads_do_not_change_a_bit(T: int) -> None:
    inputs = cast(draw(1, 1500, 9, 3, 64, T), torch.float32)
    alone = cached_attention(*inputs, SCALE)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 2)
        assert torch.equal(cached_attention(*inputs, SCALE), alone)
    finally:
        torch.set_num_threads(threads)
