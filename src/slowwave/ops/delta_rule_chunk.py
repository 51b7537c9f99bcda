"""The gated delta rule in chunks of tokens, pure PyTorch on any device.

The chunked form follows arXiv 2406.06484; letters and shapes as in `delta_rule`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from slowwave.ops.small_matmul import small_matmul, solve_unit_lower


def delta_rule_in_chunks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor,
    scale: float,
    chunk_size: int,
    keep_writes: bool,
) -> tuple[Tensor, Tensor]:
    """In chunks: inside a chunk all writes come from one triangular solve.

    With D_ij = exp(sum of log_decay over j+1..i), the writes of a chunk obey
    (I + strict_lower(beta D (k k^T))) u = beta (v - D_i0 k S), S the state at its start.
    """
    T = q.shape[1]
    size = min(chunk_size, T)
    q, k, v, log_decay, beta = (_cut(x, size) for x in (q, k, v, log_decay, beta))
    repeats = v.shape[1] // q.shape[1]
    lower = torch.ones(size, size, dtype=torch.bool, device=q.device).tril()
    total = log_decay.cumsum(-1)
    # Summed anew for every pair: a difference of two totals cancels when single tokens decay hard.
    steps = log_decay[..., :, None].expand(*log_decay.shape, size).masked_fill(~lower.tril(-1), 0.0)
    between = steps.cumsum(-2).masked_fill(~lower, -torch.inf).exp()
    overlap = small_matmul(k, k.mT).repeat_interleave(repeats, dim=1)
    attend = small_matmul(q, k.mT).repeat_interleave(repeats, dim=1) * between * scale
    q, k = q.repeat_interleave(repeats, dim=1), k.repeat_interleave(repeats, dim=1)
    system = beta[..., None] * between * overlap
    since_start = total.exp()[..., None]
    wanted = torch.cat([v, since_start * k], dim=-1) * beta[..., None]
    solved = solve_unit_lower(system, wanted)
    from_value, from_state = solved.split([v.shape[-1], k.shape[-1]], dim=-1)
    query = since_start * q * scale
    key = between[..., -1, :, None] * k
    outs: list[Tensor] = []
    num_chunks = q.shape[2]
    for c in range(num_chunks):
        write = from_value[:, :, c] - _read(from_state[:, :, c], state)
        outs.append(_read(query[:, :, c], state) + small_matmul(attend[:, :, c], write))
        if keep_writes or c + 1 < num_chunks:
            state = state.repeat_interleave(q.shape[0] // state.shape[0], dim=0)
            state = since_start[:, :, c, -1:] * state + key[:, :, c].mT @ write
    return torch.cat(outs, dim=2).transpose(1, 2)[:, :T], state


def _read(keys: Tensor, state: Tensor) -> Tensor:
    """keys (B, G, C, K) @ state (B / F, G, K, V), without copying a state that F rows share."""
    shared = keys.shape[0] // state.shape[0]
    if shared == 1:
        return keys @ state
    folded = keys.unflatten(0, (-1, shared)).movedim(1, 2).flatten(2, 3)
    read = folded @ state
    return read.unflatten(2, (shared, -1)).movedim(2, 1).flatten(0, 1)


def _cut(x: Tensor, size: int) -> Tensor:
    """(B, T, heads, ...) -> (B, heads, chunks, size, ...); the last chunk is filled with zeros."""
    B, T = x.shape[:2]
    missing = -T % size
    if missing:
        x = torch.cat([x, x.new_zeros(B, missing, *x.shape[2:])], dim=1)
    return x.unflatten(1, (-1, size)).movedim(3, 1)
