"""Causal depthwise convolution with another kernel for every token, and a tail between calls."""

from __future__ import annotations

import torch
from torch import Tensor

from slowwave.ops.padding import last_inputs, pack, unpack


def dynamic_conv(
    x: Tensor, kernels: Tensor, tail: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Each channel's sum of its own last w inputs, weighed as the current token says.

    x: (B, T, C). kernels: (B, T, C, w), the last tap weighs the current token. tail and mask as
    for `short_conv`, which this is when all tokens have one kernel.

    Returns (out (B, T, C), tail (B, w-1, C)). Source: Jet-Nemotron (arXiv 2508.15884).
    """
    if mask is None:
        return _convolve(x, kernels, tail)
    packed, order = pack(x, mask)
    packed_kernels, _ = pack(kernels.flatten(2), mask)
    out, _ = _convolve(packed, packed_kernels.view_as(kernels), tail)
    return unpack(out, order), last_inputs(tail, packed, mask)


def _convolve(x: Tensor, kernels: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    if x.shape[1] == 0:
        return x, tail
    padded = torch.cat([tail, x], dim=1)
    out = (padded.unfold(1, kernels.shape[-1], 1) * kernels).sum(-1)
    new_tail = padded[:, x.shape[1] :]
    # Of its own where no gradient keeps the rest: a view would keep all that was read.
    return out, new_tail if torch.is_grad_enabled() else new_tail.clone()
