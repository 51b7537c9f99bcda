"""Causal depthwise convolution over the last few tokens, with a tail carried between calls."""

from __future__ import annotations

import torch
from torch import Tensor


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
    order = torch.argsort((~mask).to(torch.uint8), dim=1, stable=True)
    packed = torch.take_along_dim(x, order[..., None], dim=1)
    out, _ = _convolve(packed, kernel, tail)
    out = torch.take_along_dim(out, torch.argsort(order, dim=1)[..., None], dim=1)
    steps = torch.arange(tail.shape[1], device=x.device)
    last = mask.sum(1, keepdim=True) + steps
    new_tail = torch.take_along_dim(torch.cat([tail, packed], dim=1), last[..., None], dim=1)
    return out, new_tail


def _convolve(x: Tensor, kernel: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    _, T, _ = x.shape
    width = kernel.shape[1]
    padded = torch.cat([tail, x], dim=1)
    out = sum(padded[:, tap : tap + T] * kernel[:, tap] for tap in range(width))
    assert isinstance(out, Tensor)
    return out, padded[:, T:]
