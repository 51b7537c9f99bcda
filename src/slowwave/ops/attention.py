"""Causal softmax attention within the window, and rotary positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from slowwave.ops.norm import wide_dtype
from slowwave.ops.small_matmul import small_matmul

SHORT_WINDOW = 64


def rotate(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """Rotary position embedding (RoPE, arXiv 2104.09864), halves paired as in Llama.

    x: (B, T, H, Dh), Dh even. positions: (B or 1, T) int64. Angles are computed in float32
    (float64 for float64 inputs); returns the dtype of x.
    """
    wide = wide_dtype(x.dtype)
    half = x.shape[-1] // 2
    steps = torch.arange(half, device=x.device, dtype=wide)
    angles = positions[..., None, None].to(wide) * theta ** (-steps / half)
    cos, sin = angles.cos(), angles.sin()
    first, second = x[..., :half].to(wide), x[..., half:].to(wide)
    rotated = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return rotated.to(x.dtype)


def windowed_attention(
    q: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None = None
) -> Tensor:
    """Each token attends to itself and to what precedes it in the window.

    q: (B, T, H, Dh), the last T tokens of the window. keys, values: (B, W, Hkv, Dh) with W >= T
    and H a multiple of Hkv (grouped queries). key_mask: (B, W) bool, False is unseen; a masked
    token sees itself, so that its (meaningless) output stays finite. Returns (B, T, H, Dh).
    """
    T, W = q.shape[1], keys.shape[1]
    visible = torch.ones(T, W, dtype=torch.bool, device=q.device).tril(W - T)
    if key_mask is not None:
        itself = torch.eye(W, dtype=torch.bool, device=q.device)[W - T :]
        visible = (visible & key_mask[:, None, None, :]) | itself
    attend = _attend_explicitly if W <= SHORT_WINDOW else _attend_fused
    q, keys, values = q.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)
    return attend(q, keys, values, visible).transpose(1, 2)


def _attend_explicitly(q: Tensor, keys: Tensor, values: Tensor, visible: Tensor) -> Tensor:
    """The definition, with softmax in float32; also the quicker way when windows are short."""
    wide = wide_dtype(q.dtype)
    groups = q.shape[1] // keys.shape[1]
    keys, values = keys.repeat_interleave(groups, dim=1), values.repeat_interleave(groups, dim=1)
    scores = small_matmul(q, keys.mT).to(wide) * q.shape[-1] ** -0.5
    weights = scores.masked_fill(~visible, -torch.inf).softmax(-1)
    return small_matmul(weights.to(values.dtype), values)


def _attend_fused(q: Tensor, keys: Tensor, values: Tensor, visible: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(
        q, keys, values, attn_mask=visible, enable_gqa=q.shape[1] != keys.shape[1]
    )
