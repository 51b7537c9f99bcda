"""Softmax attention over compact entries, each with a bias, and the window after them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from slowwave.entries import HeadEntries
from slowwave.ops.norm import wide_dtype

FEW_TOKENS = 16
"""Up to so many tokens, scores are held in full; copies for a fused kernel would take longer."""


def compact_attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    memory: Sequence[HeadEntries],
    key_mask: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Each token attends to all entries of its head, to the window before it and to itself.

    q: (B, T, H, Dh), the last T tokens of the window. keys, values: (B, W, Hkv, Dh) with W >= T and
    H a multiple of Hkv. memory: the entries of every KV head; at score scale q k + bias.
    key_mask: (B, W) bool, False is unseen, as in `windowed_attention`. scale: 1 / sqrt(Dh) if not
    given. Returns (B, T, H, Dh).
    """
    T, W = q.shape[1], keys.shape[1]
    visible = _see_window(T, W, key_mask, q.device)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    attend = _attend_explicitly if T <= FEW_TOKENS else _attend_fused
    grouped = q.unflatten(2, (len(memory), -1)).permute(2, 0, 3, 1, 4)
    parts = [
        attend(
            queries, keys[:, :, h], values[:, :, h], entries, visible, scale or q.shape[-1] ** -0.5
        )
        for h, (queries, entries) in enumerate(zip(grouped, memory, strict=True))
    ]
    return torch.cat(parts, dim=1).transpose(1, 2)


def _see_window(T: int, W: int, key_mask: Tensor | None, device: torch.device) -> Tensor:
    """(B or 1, 1, T, W) bool; a masked token sees itself."""
    visible = torch.ones(T, W, dtype=torch.bool, device=device).tril(W - T)
    if key_mask is None:
        return visible[None, None]
    itself = torch.eye(W, dtype=torch.bool, device=device)[W - T :]
    return (visible & key_mask[:, None, None, :]) | itself


def _attend_explicitly(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    entries: HeadEntries,
    visible: Tensor,
    scale: float,
) -> Tensor:
    """Query heads of a group, q (B, H / Hkv, T, Dh), on one head; softmax in float32."""
    wide = wide_dtype(q.dtype)
    kept = q.to(entries.keys.dtype) @ entries.keys.mT[:, None] * scale
    new = (q @ keys.mT[:, None]).to(wide) * scale
    scores = [kept + entries.bias[:, None, None], new.masked_fill(~visible, -torch.inf)]
    weights = torch.cat(scores, dim=-1).softmax(-1)
    of_kept, of_new = weights.split([kept.shape[-1], new.shape[-1]], dim=-1)
    read = of_kept @ entries.values[:, None]
    return (read + (of_new.to(values.dtype) @ values[:, None])).to(q.dtype)


def _attend_fused(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    entries: HeadEntries,
    visible: Tensor,
    scale: float,
) -> Tensor:
    """As `_attend_explicitly`."""
    B, groups, T, _ = q.shape
    bias = entries.bias.to(q.dtype)[:, None, None].expand(-1, -1, T, -1)
    unseen = torch.zeros_like(visible, dtype=q.dtype).masked_fill(~visible, -torch.inf)
    mask = torch.cat([bias, unseen.expand(B, -1, -1, -1)], dim=-1)
    keys = torch.cat([entries.keys.to(q.dtype), keys], dim=1)
    values = torch.cat([entries.values.to(q.dtype), values], dim=1)
    # One head to the kernel: its query heads are queries one after the other.
    return F.scaled_dot_product_attention(
        q.flatten(1, 2)[:, None],
        keys[:, None],
        values[:, None],
        attn_mask=mask.repeat(1, 1, groups, 1),
        scale=scale,
    ).unflatten(2, (groups, T))[:, 0]


def compact_attention_reference(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    memory: Sequence[HeadEntries],
    key_mask: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """As `compact_attention`, its definition: one softmax over all that a token sees, padded."""
    W = keys.shape[1]
    sees = torch.ones(q.shape[1], W, dtype=torch.bool, device=q.device).tril(W - q.shape[1])
    if key_mask is not None:
        itself = torch.eye(W, dtype=torch.bool, device=q.device)[W - q.shape[1] :]
        sees = (sees & key_mask[:, None]) | itself
    groups = q.shape[2] // keys.shape[2]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    heads: list[Tensor] = []
    for h in range(q.shape[2]):
        entries = memory[h // groups]
        seen_keys = torch.cat([entries.keys, keys[:, :, h // groups]], dim=1)
        seen_values = torch.cat([entries.values, values[:, :, h // groups]], dim=1)
        scores = q[:, :, h] @ seen_keys.mT * scale
        bias = torch.where(sees, 0.0, -torch.inf).to(scores.dtype).expand(len(q), -1, -1)
        biases = entries.bias[:, None].expand(-1, q.shape[1], -1)
        weights = (scores + torch.cat([biases, bias], dim=-1)).softmax(-1)
        heads.append(weights @ seen_values)
    return torch.stack(heads, dim=2)
