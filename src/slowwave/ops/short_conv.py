"""Causal depthwise convolution over the last few tokens, with a tail carried between calls."""

from __future__ import annotations

import torch
from torch import Tensor

from slowwave.ops.padding import last_inputs, pack, unpack


def short_conv(
    x: Tensor, kernel: Tensor, tail: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Each channel's weighted sum of its own last w inputs.

    x: (B, T, C). kernel: (C, w), the last tap weighs the current token. tail: (B, w-1, C), the
    inputs before x, zero where there were none. mask: (B, T) bool, False tokens are skipped as if
    they were not there (their output is of no meaning) and leave the tail untouched.

    Returns (out (B, T, C), tail (B, w-1, C)). Source: fla's ShortConvolution, no bias.
    """
    if mask is None:
        return _convolve(x, kernel, tail)
    packed, order = pack(x, mask)
    out, _ = _convolve(packed, kernel, tail)
    return unpack(out, order), last_inputs(tail, packed, mask)


def _convolve(x: Tensor, kernel: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    _, T, _ = x.shape
    width = kernel.shape[1]
    padded = torch.cat([tail, x], dim=1)
    out = sum(padded[:, tap : tap + T] * kernel[:, tap] for tap in range(width))
    assert isinstance(out, Tensor)
    new_tail = padded[:, T:]
    # Of its own where no gradient keeps the rest: a view would keep all that was read.
    return out, new_tail if torch.is_grad_enabled() else new_tail.clone()
