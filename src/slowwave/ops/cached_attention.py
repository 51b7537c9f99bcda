"""One query a head on all that is cached, and on compact entries beside it; without gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from slowwave.entries import CompactKeyValues
from slowwave.ops import native
from slowwave.ops.norm import wide_dtype


def cached_attention(
    q: Tensor, keys: Tensor, values: Tensor, scale: float, entries: CompactKeyValues | None = None
) -> Tensor:
    """Each query attends to the whole cache, and to the entries of its head.

    q: (B, 1, H, Dh). keys, values: (B, W, Hkv, Dh), H a multiple of Hkv; W is 1 or more. scale: of
    the products, not of biases. Returns (B, 1, H, Dh). Where the compiled operator cannot work this
    is `cached_attention_reference`.
    """
    if native.can_read(q):
        memory = [] if entries is None else list_parts(entries)
        return torch.ops.slowwave.attend(q, keys, values, memory, scale)
    return cached_attention_reference(q, keys, values, scale, entries)


def list_parts(entries: CompactKeyValues) -> list[Tensor]:
    """What the compiled operators take of them."""
    return [entries.keys, entries.values, entries.bias, entries.lengths]


def cached_attention_reference(
    q: Tensor, keys: Tensor, values: Tensor, scale: float, entries: CompactKeyValues | None = None
) -> Tensor:
    """As `cached_attention`: its definition, head by head, with softmax in float32 or wider."""
    wide = wide_dtype(q.dtype)
    per_group = q.shape[2] // keys.shape[2]
    read = torch.empty(q.shape, dtype=wide)
    for b in range(q.shape[0]):
        runs = [
            _see_head(keys[b, :, g], values[b, :, g], entries, b, g) for g in range(keys.shape[2])
        ]
        for h in range(q.shape[2]):
            seen_keys, seen_values, bias = (each.to(wide) for each in runs[h // per_group])
            scores = seen_keys @ q[b, 0, h].to(wide) * scale + bias
            read[b, 0, h] = scores.softmax(0) @ seen_values
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
