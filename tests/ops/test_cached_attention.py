"""One query on a long cache and on compact entries: compiled, against the definition."""

import pytest
import torch
from torch import Tensor

from numerics import TOLERANCE, assert_close
from slowwave.entries import CompactKeyValues
from slowwave.ops.cached_attention import cached_attention, cached_attention_reference
from slowwave.ops.norm import wide_dtype

SCALE = 0.3


def draw(B: int, W: int, H: int, kv_heads: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(B, 1, H, size), (B, W, kv_heads, size), (B, W, kv_heads, size)]
    q, keys, values = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
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
@pytest.mark.parametrize("W", [1, 63, 64, 65, 255, 256, 257, 1100])
@pytest.mark.parametrize(
    ("H", "kv_heads", "size"), [(3, 3, 6), (4, 2, 16), (7, 1, 40), (9, 3, 64), (10, 2, 80)]
)
@torch.no_grad()
def test_is_the_definition(H: int, kv_heads: int, size: int, W: int, dtype: torch.dtype) -> None:
    inputs = draw(2, W, H, kv_heads, size)
    expected = cached_attention_reference(*inputs, SCALE)
    actual = cached_attention(*(each.to(dtype) for each in inputs), SCALE)
    assert actual.dtype == dtype
    assert_close(actual, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("W", [1, 300])
@pytest.mark.parametrize(
    "lengths", [[[0, 0], [1, 0]], [[5, 700], [90, 0]], [[64, 65], [300, 1]], [[2, 513], [257, 256]]]
)
@torch.no_grad()
def test_entries_of_heads_are_seen_with_their_biases(
    lengths: list[list[int]], W: int, dtype: torch.dtype
) -> None:
    """Uneven lengths, and rows that have fewer than others: what pads them is of no meaning."""
    inputs, entries = draw(2, W, 6, 2, 32), draw_entries(lengths, 32)
    expected = cached_attention_reference(*inputs, SCALE, entries)
    for row, counts in enumerate(lengths):
        for tensor in (entries.keys, entries.values, entries.bias):
            tensor[row, sum(counts) :] = torch.nan
    actual = cached_attention(*(each.to(dtype) for each in inputs), SCALE, narrow(entries, dtype))
    assert_close(actual, expected, TOLERANCE[dtype])


@torch.no_grad()
def test_a_view_of_a_cache_with_room() -> None:
    """Rows of the batch lie apart in a buffer that grows; the last tokens are seen alone too."""
    q, keys, values = (each.float() for each in draw(3, 700, 4, 2, 16))
    for seen in (slice(0, 400), slice(650, 700)):
        parts = keys[:, seen], values[:, seen]
        expected = cached_attention_reference(q, *parts, SCALE)
        assert_close(cached_attention(q, *parts, SCALE), expected, 1e-5)


@torch.no_grad()
def test_great_scores_and_entries_that_nobody_sees() -> None:
    """Softmax stays finite, whichever piece has the greatest score; a bias of -inf hides."""
    q, keys, values = draw(1, 600, 2, 1, 8)
    entries = draw_entries([[40]], 8)
    entries.bias[0, :7] = -torch.inf
    for place in (0, 300, 599):
        high = keys.clone()
        high[:, place] = 200 * q[:, 0, :1]
        expected = cached_attention_reference(q, high, values, SCALE, entries)
        assert_close(cached_attention(q, high, values, SCALE, entries), expected, 1e-12)


@torch.no_grad()
def test_threads_do_not_change_a_bit() -> None:
    inputs = [each.float() for each in draw(1, 1500, 9, 3, 64)]
    alone = cached_attention(*inputs, SCALE)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 2)
        assert torch.equal(cached_attention(*inputs, SCALE), alone)
    finally:
        torch.set_num_threads(threads)
