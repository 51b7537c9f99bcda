"""Softmax attention over compact entries, each with a bias, and the window after them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from slowwave.entries import HeadEntries

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
    H a multiple of Hkv. memory: the entries of every KV head; at score scale q k + bias. key_mask:
    (B, W) bool, False is unseen, as in `windowed_attention`. scale: 1 / sqrt(Dh) if not given.
    Returns (B, T, H, Dh).
    """
    attend = _attend_explicitly if q.shape[1] <= FEW_TOKENS else _attend_fused
    heads = _split_heads(q, keys, values, memory, key_mask, scale)
    return torch.cat([attend(head) for head in heads], dim=1).transpose(1, 2)


def watched_attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    memory: Sequence[HeadEntries],
    key_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """As `compact_attention`, and the log of the sum that each token's attention is divided by.

    Returns ((B, T, H, Dh), (B, T, H)); with it, attention to any key is known from its score.
    """
    attend = _attend_explicitly_and_sum
    if q.is_cpu and not torch.is_grad_enabled():
        attend = _attend_fused_and_sum
    heads = [attend(head) for head in _split_heads(q, keys, values, memory, key_mask, scale)]
    read, log_sums = (torch.cat(each, dim=1).transpose(1, 2) for each in zip(*heads, strict=True))
    return read, log_sums


class _Head(NamedTuple):
    """One KV head: q (B, H / Hkv, T, Dh), its keys and values (B, W, Dh), its entries; unseen (B or
    1, 1, T, W), added to scores: 0, or -inf for what a token does not see."""

    q: Tensor
    keys: Tensor
    values: Tensor
    entries: HeadEntries
    unseen: Tensor
    scale: float


def _split_heads(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    memory: Sequence[HeadEntries],
    key_mask: Tensor | None,
    scale: float | None,
) -> list[_Head]:
    visible = _see_window(q.shape[1], keys.shape[1], key_mask, q.device)
    unseen = torch.zeros_like(visible, dtype=q.dtype).masked_fill(~visible, -torch.inf)
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    grouped = q.unflatten(2, (len(memory), -1)).permute(2, 0, 3, 1, 4)
    parts = zip(grouped, keys.unbind(2), values.unbind(2), memory, strict=True)
    return [_Head(*each, unseen, factor) for each in parts]


def _see_window(T: int, W: int, key_mask: Tensor | None, device: torch.device) -> Tensor:
    """(B or 1, 1, T, W) bool; a masked token sees itself."""
    visible = torch.ones(T, W, dtype=torch.bool, device=device).tril(W - T)
    if key_mask is None:
        return visible[None, None]
    itself = torch.eye(W, dtype=torch.bool, device=device)[W - T :]
    return (visible & key_mask[:, None, None, :]) | itself


def _attend_explicitly(head: _Head) -> Tensor:
    """What a head reads, (B, H / Hkv, T, Dh); softmax in float32, and nothing is copied."""
    return _weigh(head, _score(head).softmax(-1))


def _attend_explicitly_and_sum(head: _Head) -> tuple[Tensor, Tensor]:
    """As `_attend_explicitly`, and the log of the sum, (B, H / Hkv, T)."""
    scores = _score(head)
    return _weigh(head, scores.softmax(-1)), scores.logsumexp(-1)


def _score(head: _Head) -> Tensor:
    """(B, H / Hkv, T, E + W), -inf for what a token does not see."""
    q, entries = head.q, head.entries
    kept = q.to(entries.keys.dtype) @ entries.keys.mT[:, None] * head.scale
    new = (q @ head.keys.mT[:, None]).to(kept.dtype) * head.scale
    return torch.cat([kept + entries.bias[:, None, None], new + head.unseen], dim=-1)


def _weigh(head: _Head, weights: Tensor) -> Tensor:
    of_kept, of_new = weights.split([head.entries.keys.shape[1], head.keys.shape[1]], dim=-1)
    read = of_kept @ head.entries.values[:, None]
    return (read + (of_new.to(head.values.dtype) @ head.values[:, None])).to(head.q.dtype)


def _attend_fused(head: _Head) -> Tensor:
    """As `_attend_explicitly`."""
    keys, values, mask = _join(head)
    return F.scaled_dot_product_attention(head.q, keys, values, attn_mask=mask, scale=head.scale)


def _attend_fused_and_sum(head: _Head) -> tuple[Tensor, Tensor]:
    """As `_attend_explicitly_and_sum`, without gradients, on a CPU."""
    keys, values, mask = _join(head)
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        head.q, keys, values, 0.0, False, attn_mask=mask, scale=head.scale
    )


def _join(head: _Head) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values (B, H / Hkv, E + W, Dh), entries first, and a mask (B, H / Hkv, T, E + W) to
    be added; repeated without a copy."""
    q, entries = head.q, head.entries
    B, groups, T, _ = q.shape
    bias = entries.bias.to(q.dtype)[:, None, None].expand(-1, -1, T, -1)
    mask = torch.cat([bias, head.unseen.expand(B, -1, -1, -1)], dim=-1)
    keys = torch.cat([entries.keys.to(q.dtype), head.keys], dim=1)[:, None]
    values = torch.cat([entries.values.to(q.dtype), head.values], dim=1)[:, None]
    keys, values, mask = (each.expand(-1, groups, -1, -1) for each in (keys, values, mask))
    return keys, values, mask


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
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    heads: list[Tensor] = []
    for h in range(q.shape[2]):
        entries = memory[h // groups]
        seen_keys = torch.cat([entries.keys, keys[:, :, h // groups]], dim=1)
        seen_values = torch.cat([entries.values, values[:, :, h // groups]], dim=1)
        scores = q[:, :, h] @ seen_keys.mT * factor
        bias = torch.where(sees, 0.0, -torch.inf).to(scores.dtype).expand(len(q), -1, -1)
        biases = entries.bias[:, None].expand(-1, q.shape[1], -1)
        weights = (scores + torch.cat([biases, bias], dim=-1)).softmax(-1)
        heads.append(weights @ seen_values)
    return torch.stack(heads, dim=2)
