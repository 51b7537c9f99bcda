"""Causal depthwise convolutions over the last few tokens, with a tail carried between calls.

Padding is taken out from between the tokens first: no convolution sees it.
"""

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
        return _convolve_fixed(x, kernel, tail)
    packed, order = _pack(x, mask)
    out, _ = _convolve_fixed(packed, kernel, tail)
    return _unpack(out, order), _last_inputs(tail, packed, mask)


def _convolve_fixed(x: Tensor, kernel: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    _, T, _ = x.shape
    width = kernel.shape[1]
    padded = torch.cat([tail, x], dim=1)
    out = sum(padded[:, tap : tap + T] * kernel[:, tap] for tap in range(width))
    assert isinstance(out, Tensor)
    return out, _cut_loose(padded[:, T:])


def dynamic_conv(
    x: Tensor, kernels: Tensor, tail: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Each channel's sum of its own last w inputs, weighed as the current token says.

    x: (B, T, C). kernels: (B, T, C, w), the last tap weighs the current token. tail and mask as
    for `short_conv`, which this is when all tokens have one kernel.

    Returns (out (B, T, C), tail (B, w-1, C)). Source: Jet-Nemotron (arXiv 2508.15884).
    """
    if mask is None:
        return _convolve_dynamic(x, kernels, tail)
    packed, order = _pack(x, mask)
    packed_kernels, _ = _pack(kernels.flatten(2), mask)
    out, _ = _convolve_dynamic(packed, packed_kernels.view_as(kernels), tail)
    return _unpack(out, order), _last_inputs(tail, packed, mask)


def _convolve_dynamic(x: Tensor, kernels: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    if x.shape[1] == 0:
        return x, tail
    padded = torch.cat([tail, x], dim=1)
    out = (padded.unfold(1, kernels.shape[-1], 1) * kernels).sum(-1)
    return out, _cut_loose(padded[:, x.shape[1] :])


def _pack(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, T, C) with the tokens that mask (B, T) has first, and the order (B, T, 1) of that."""
    order = torch.argsort((~mask).to(torch.uint8), dim=1, stable=True)[..., None]
    return torch.take_along_dim(x, order, dim=1), order


def _unpack(packed: Tensor, order: Tensor) -> Tensor:
    """The way back of `_pack`."""
    return torch.take_along_dim(packed, torch.argsort(order, dim=1), dim=1)


def _last_inputs(tail: Tensor, packed: Tensor, mask: Tensor) -> Tensor:
    """The last inputs (B, w-1, C) of `tail` and the packed tokens that mask (B, T) has."""
    steps = torch.arange(tail.shape[1], device=packed.device)
    last = mask.sum(1, keepdim=True) + steps
    return torch.take_along_dim(torch.cat([tail, packed], dim=1), last[..., None], dim=1)


def _cut_loose(tail: Tensor) -> Tensor:
    """A tail of its own where no gradient keeps the rest: a view would keep all that was read."""
    return tail if torch.is_grad_enabled() else tail.clone()
