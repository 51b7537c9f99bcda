"""Causal softmax attention within the window, and rotary positions."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from slowwave.ops import native
from slowwave.ops.cached_attention import cached_attention
from slowwave.ops.linear import small_matmul
from slowwave.ops.norm import wide_dtype
from slowwave.state import Band

SHORT_WINDOW = 64
LONG_WINDOW = 128
"""Over longer ones the compiled operators read; over others what torch computes stays to the bit.
The compiled token knows the same number."""


class Rotation(NamedTuple):
    """Cosines and sines of rotary angles, (B or 1, T, 1, Dh / 2) each; the same for all layers."""

    cos: Tensor
    sin: Tensor


class Rope(NamedTuple):
    """Rotary positions (RoPE, arXiv 2104.09864) of heads of which an even `size` is turned.

    factor: divides frequencies; with `original_length` those alone that turn less than `low_turns`
    times in so many tokens, while those above `high_turns` stay and the ones between mix (Llama
    3.1).
    """

    size: int
    theta: float
    factor: float = 1.0
    original_length: int | None = None
    low_turns: float = 1.0
    high_turns: float = 4.0

    def frequencies(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """(size / 2,) radians a token."""
        steps = torch.arange(self.size // 2, device=device, dtype=dtype)
        plain = self.theta ** (-steps / (self.size // 2))
        if self.original_length is None:
            return plain / self.factor
        turns = self.original_length * plain / (2 * math.pi)
        share = ((turns - self.low_turns) / (self.high_turns - self.low_turns)).clamp(0, 1)
        return plain * (share + (1 - share) / self.factor)


def rotation(positions: Tensor, rope: Rope, dtype: torch.dtype) -> Rotation:
    """The angles at positions (B or 1, T) int64, in a dtype of float32 or wider."""
    turned = positions[..., None, None].to(dtype)
    angles = turned * rope.frequencies(dtype, positions.device)
    return Rotation(angles.cos(), angles.sin())


def exact_rotation(positions: Tensor, rope: Rope, dtype: torch.dtype) -> Rotation:
    """`rotation` at positions that may be large: angles in float64, what is made of them in dtype.

    In float32 the angle at position 10^6 would be wrong by some hundredths of a radian.
    """
    cos, sin = rotation(positions, rope, torch.float64)
    return Rotation(cos.to(dtype), sin.to(dtype))


def window_rotation(
    start: int, stop: int, rope: Rope, dtype: torch.dtype, device: torch.device
) -> Rotation:
    """`rotation` at places start to stop - 1 of a window without padding."""
    cos, sin = _window_angles(start, stop, rope, dtype, device)
    return Rotation(cos, sin)


# A constant to torch.compile, which would else take a cosine for every number that it turns.
@torch.compiler.assume_constant_result
def _window_angles(*place: Any) -> Tensor:
    return _remembered_angles(*place)


@functools.lru_cache(maxsize=64)
def _remembered_angles(
    start: int, stop: int, rope: Rope, dtype: torch.dtype, device: torch.device
) -> Tensor:
    with torch.inference_mode(False):  # who asks next may want gradients
        positions = torch.arange(start, stop, device=device)[None]
        return torch.stack(rotation(positions, rope, dtype))


def rotate(x: Tensor, rotary: Rotation) -> Tensor:
    """x (B, T, H, Dh), its halves paired as in Llama, turned; computed in the angles' dtype."""
    cos, sin = rotary
    if native.can_read(x) and cos.dtype == wide_dtype(x.dtype):
        return torch.ops.slowwave.rotate(x, cos, sin)
    first, second = x.to(cos.dtype).chunk(2, dim=-1)
    turned = [first * cos - second * sin, second * cos + first * sin]
    return torch.cat(turned, dim=-1).to(x.dtype)


def windowed_attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    key_mask: Tensor | None = None,
    band: Band | None = None,
    scale: float | None = None,
) -> Tensor:
    """Each token attends to itself and to what precedes it in the cache, as far as `band` goes.

    q: (B, T, H, Dh), the last T tokens of the cache. keys, values: (B, W, Hkv, Dh) with W >= T
    and H a multiple of Hkv (grouped queries). key_mask: (B, W) bool, False is unseen; a masked
    token sees itself, so that its (meaningless) output stays finite. scale: of the scores,
    Dh ** -0.5 if None. Returns (B, T, H, Dh).
    """
    T, W = q.shape[1], keys.shape[1]
    is_plain = key_mask is None and (band is None or band.sinks == 0)
    if is_plain and W > LONG_WINDOW and native.can_read(q):
        factor = q.shape[-1] ** -0.5 if scale is None else scale
        reach = None if band is None else band.reach
        return cached_attention(q, keys, values, factor, reach=reach)
    q, keys, values = q.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)
    if key_mask is None and band is None and (_reads_one(q) or (T == W > SHORT_WINDOW)):
        return _attend_fused(q, keys, values, None, scale, causal=T > 1).transpose(1, 2)
    visible = torch.ones(T, W, dtype=torch.bool, device=q.device).tril(W - T)
    if band is not None:
        near = visible.triu(W - T - band.reach + 1)
        visible = near | (visible & (torch.arange(W, device=q.device) < band.sinks))
    if key_mask is not None:
        itself = torch.eye(W, dtype=torch.bool, device=q.device)[W - T :]
        visible = (visible & key_mask[:, None, None, :]) | itself
    attend = _attend_explicitly if W <= SHORT_WINDOW else _attend_fused
    return attend(q, keys, values, visible, scale).transpose(1, 2)


def _attend_explicitly(
    q: Tensor, keys: Tensor, values: Tensor, visible: Tensor, scale: float | None
) -> Tensor:
    """The definition, with softmax in float32; also the quicker way when windows are short."""
    wide = wide_dtype(q.dtype)
    groups = q.shape[1] // keys.shape[1]
    keys, values = keys.repeat_interleave(groups, dim=1), values.repeat_interleave(groups, dim=1)
    scores = small_matmul(q, keys.mT).to(wide) * (scale or q.shape[-1] ** -0.5)
    weights = scores.masked_fill(~visible, -torch.inf).softmax(-1)
    return small_matmul(weights.to(values.dtype), values)


def _attend_fused(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    visible: Tensor | None,
    scale: float | None,
    *,
    causal: bool = False,
) -> Tensor:
    return F.scaled_dot_product_attention(
        q,
        keys,
        values,
        attn_mask=visible,
        is_causal=causal,
        scale=scale,
        enable_gqa=q.shape[1] != keys.shape[1],
    )


def _reads_one(q: Tensor) -> bool:
    """One token a row that sees its whole window; its backward would be slow for many rows."""
    return q.shape[2] == 1 and not torch.is_grad_enabled()
