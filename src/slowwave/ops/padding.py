"""Tokens without the padding between them, for convolutions that must not see it."""

from __future__ import annotations

import torch
from torch import Tensor


def pack(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, T, C) with the tokens that mask (B, T) has first, and the order (B, T, 1) of that."""
    order = torch.argsort((~mask).to(torch.uint8), dim=1, stable=True)[..., None]
    return torch.take_along_dim(x, order, dim=1), order


def unpack(packed: Tensor, order: Tensor) -> Tensor:
    """The way back of `pack`."""
    return torch.take_along_dim(packed, torch.argsort(order, dim=1), dim=1)


def last_inputs(tail: Tensor, packed: Tensor, mask: Tensor) -> Tensor:
    """The last inputs (B, w-1, C) of `tail` and the packed tokens that mask (B, T) has."""
    steps = torch.arange(tail.shape[1], device=packed.device)
    last = mask.sum(1, keepdim=True) + steps
    return torch.take_along_dim(torch.cat([tail, packed], dim=1), last[..., None], dim=1)
