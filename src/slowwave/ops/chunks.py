"""What chunked rules have in common: cuts, decays inside a chunk, reads from states rows share.

The axes of what is cut are (B, heads, chunks, C, ...), C tokens a chunk; letters as in `state`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Decays(NamedTuple):
    """How much is left of what was there: exp of the decays in between, for all chunks."""

    between: Tensor
    """From token j to token i, zero above the diagonal: (..., C, C)."""
    since: Tensor
    """From the chunk's start to a token: (..., C, 1)."""
    to_end: Tensor
    """From a token to the chunk's end: (..., C, 1)."""


def cut(x: Tensor, size: int) -> Tensor:
    """(B, T, heads, ...) -> (B, heads, chunks, size, ...); the last chunk is filled with zeros."""
    B, T = x.shape[:2]
    missing = -T % size
    if missing:
        x = torch.cat([x, x.new_zeros(B, missing, *x.shape[2:])], dim=1)
    return x.unflatten(1, (-1, size)).movedim(3, 1).contiguous()


def join(x: Tensor, num_tokens: int) -> Tensor:
    """The way back of `cut`, for `num_tokens` tokens."""
    return x.flatten(2, 3).transpose(1, 2)[:, :num_tokens]


def decay_inside(log_decay: Tensor) -> Decays:
    """log_decay: (..., C)."""
    size = log_decay.shape[-1]
    lower = torch.ones(size, size, dtype=torch.bool, device=log_decay.device).tril()
    # Summed anew for every pair: a difference of two totals cancels when single tokens decay hard.
    steps = log_decay[..., :, None].expand(*log_decay.shape, size).masked_fill(~lower.tril(-1), 0.0)
    between = steps.cumsum(-2).masked_fill(~lower, -torch.inf).exp()
    return Decays(
        between=between,
        since=log_decay.cumsum(-1).exp()[..., None],
        to_end=between[..., -1, :, None],
    )


def grad_decay_inside(pairs: Tensor, at_start: Tensor) -> Tensor:
    """The gradient of log_decay (..., C) through what tokens read of their own chunk and its start.

    pairs: (..., C, C), what came through `between` of i and j, times it. at_start: (..., C), what
    came through `since` of i, times it. Past token t decay pairs j < t <= i and reads at i >= t.
    Differences of larger sums would cancel, see `decay_inside`.
    """
    return sum_from(pairs, -2).tril(-1).sum(-1) + sum_from(at_start, -1)


def grad_decay_to_end(kept: Tensor, grad_ends: Tensor, starts: Tensor, since: Tensor) -> Tensor:
    """The gradient of log_decay (..., C) through the state (..., K, V) at the chunk's end.

    kept: (..., C), what came through `to_end` of j, times it: writes at j < t decay past token t.
    """
    earlier = F.pad(kept.cumsum(-1)[..., :-1], (1, 0))
    return earlier + since[..., -1, :] * (grad_ends * starts).sum((-2, -1))[..., None]


def sum_from(x: Tensor, dim: int) -> Tensor:
    """Sums from each place to the end of `dim`."""
    return x.flip(dim).cumsum(dim).flip(dim)


def read_shared(keys: Tensor, state: Tensor) -> Tensor:
    """keys (B, G, ..., C, K) @ state (B / F, G, ..., K, V), not copying what F rows share."""
    rows = state.shape[0]
    shared = keys.shape[0] // rows
    read = fold(keys, rows) @ state
    if shared == 1:
        return read
    return read.unflatten(-2, (shared, -1)).movedim(-3, 1).flatten(0, 1)


def gather_shared(keys: Tensor, values: Tensor, rows: int) -> Tensor:
    """keys^T @ values, summed over the F of B rows that share one of `rows` states."""
    return fold(keys, rows).mT @ fold(values, rows)


def fold(x: Tensor, rows: int) -> Tensor:
    """(B, G, ..., C, size) -> (rows, G, ..., B / rows * C, size)."""
    if x.shape[0] == rows:
        return x
    return x.unflatten(0, (rows, -1)).movedim(1, -3).flatten(-3, -2)
