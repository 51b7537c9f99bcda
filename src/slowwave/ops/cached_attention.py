"""Attention over what is cached and over compact entries beside it, compiled; without gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from slowwave.entries import CompactKeyValues
from slowwave.ops import native
from slowwave.ops.norm import wide_dtype


def cached_attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    scale: float,
    *,
    entries: CompactKeyValues | None = None,
    reach: int | None = None,
) -> Tensor:
    """Each token attends to itself, to what precedes it in the cache, and to entries of its head.

    q: (B, T, H, Dh), the last T tokens of the cache. keys, values: (B, W, Hkv, Dh) with W >= T and
    H a multiple of Hkv. scale: of the products, not of biases. reach: of the cache a token sees
    itself and so many less one before it; None for all. Returns (B, T, H, Dh). Where the compiled
    operators cannot work this is `cached_attention_reference`.
    """
    if not native.can_read(q):
        return cached_attention_reference(q, keys, values, scale, entries=entries, reach=reach)
    memory = [] if entries is None else list_parts(entries)
    T, W = q.shape[1], keys.shape[1]
    seen = W if reach is None else reach
    if T > 1:
        return torch.ops.slowwave.read_window(q, keys, values, memory, scale, seen)[0]
    first = max(0, W - seen)
    return torch.ops.slowwave.attend(q, keys[:, first:], values[:, first:], memory, scale)


def cached_attention_and_sum(
    q: Tensor, keys: Tensor, values: Tensor, scale: float, entries: CompactKeyValues
) -> tuple[Tensor, Tensor]:
    """As `cached_attention`, and the log of the sum that each token's attention is divided by.

    For tensors that `native.can_read` takes. Returns ((B, T, H, Dh), (B, T, H)).
    """
    memory = list_parts(entries)
    return torch.ops.slowwave.read_window(q, keys, values, memory, scale, keys.shape[1])


def list_parts(entries: CompactKeyValues) -> list[Tensor]:
    """What the compiled operators take of them."""
    return [entries.keys, entries.values, entries.bias, entries.lengths]


def cached_attention_reference(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    scale: float,
    *,
    entries: CompactKeyValues | None = None,
    reach: int | None = None,
) -> Tensor:
    """As `cached_attention`: its definition, head by head, with softmax in float32 or wider."""
    (B, T, H, _), (W, heads), wide = q.shape, keys.shape[1:3], wide_dtype(q.dtype)
    is_seen = torch.ones(T, W, dtype=torch.bool, device=q.device).tril(W - T)
    if reach is not None:
        is_seen = is_seen.triu(W - T - reach + 1)
    read = torch.empty(q.shape, dtype=wide, device=q.device)
    for b in range(B):
        for h in range(H):
            g = h * heads // H
            run = _see_head(keys[b, :, g], values[b, :, g], entries, b, g)
            all_keys, all_values, bias = (each.to(wide) for each in run)
            scores = q[b, :, h].to(wide) @ all_keys.T * scale + bias
            scores[:, -W:].masked_fill_(~is_seen, -torch.inf)
            read[b, :, h] = scores.softmax(-1) @ all_values
    return read.to(q.dtype)


def _see_head(
    keys: Tensor, values: Tensor, entries: CompactKeyValues | None, b: int, g: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Keys, values (E + W, Dh) and biases (E + W,) that KV head g of row b has in all."""
    bias = keys.new_zeros(len(keys))
    if entries is None:
        return keys, values, bias
    start = int(entries.lengths[b, :g].sum())
    own = slice(start, start + int(entries.lengths[b, g]))
    return (
        torch.cat([entries.keys[b, own], keys]),
        torch.cat([entries.values[b, own], values]),
        torch.cat([entries.bias[b, own], bias]),
    )
