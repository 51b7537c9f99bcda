"""What the delta rule takes from a projection: normalised queries and keys, and values.

Source: arXiv 2412.06464 as flash-linear-attention builds it: short convolution, SiLU, and the l2
norm of every query and key.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from slowwave.ops import native
from slowwave.ops.norm import l2_norm, wide_dtype
from slowwave.ops.short_conv import short_conv


def delta_inputs(
    x: Tensor,
    kernel: Tensor,
    tail: Tensor,
    *,
    num_values: int,
    key_dim: int,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Splits x into heads of keys (or of queries and keys) and the values after them.

    x: (B, T, C), its last num_values channels are values. kernel: (C, w). tail: (B, w-1, C), the
    inputs before x. mask: (B, T) bool, see `short_conv`.

    Returns (keys (B, T, (C - num_values) / K, K), wide; values (B, T, num_values); new tail).
    """
    num_keys = x.shape[2] - num_values
    if mask is None and _suits_native(x, kernel, tail):
        keys, values = torch.ops.slowwave.delta_inputs(x, kernel, tail, num_keys, key_dim)
        taps = tail.shape[1]
        new_tail = torch.cat([tail, x[:, -taps:]], dim=1)[:, -taps:]
        return keys.unflatten(-1, (-1, key_dim)), values, new_tail
    return _compose(x, kernel, tail, num_keys=num_keys, key_dim=key_dim, mask=mask)


def _suits_native(x: Tensor, kernel: Tensor, tail: Tensor) -> bool:
    alike = x.dtype == tail.dtype and kernel.dtype == wide_dtype(x.dtype)
    return alike and native.can_train(x)


def _compose(
    x: Tensor,
    kernel: Tensor,
    tail: Tensor,
    *,
    num_keys: int,
    key_dim: int,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Step by step: the specification, on any device."""
    mixed, new_tail = short_conv(x, kernel.to(x.dtype), tail, mask)
    keys, values = F.silu(mixed).split([num_keys, x.shape[2] - num_keys], dim=-1)
    return l2_norm(keys.unflatten(-1, (-1, key_dim))), values, new_tail
