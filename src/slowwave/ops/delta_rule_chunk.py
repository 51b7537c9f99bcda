"""The gated delta rule in chunks of tokens, pure PyTorch on any device.

With D_ij = exp(sum of log_decay over j+1..i), `since` the same from the chunk's start to a token
and `to_end` from a token to its end, a chunk of C tokens that starts from the state S does

    A = strict_lower(beta_i D_ij k_i.k_j)      P = scale lower(D_ij q_i.k_j)
    (I + A) U = beta (v - since k S)           the writes
    out = scale since q S + P U                the reads
    S <- since_C S + (to_end k)^T U            the state at its end

Everything but the walk from state to state is batched over rows, heads and chunks. The way back
keeps the inputs and the states at the chunks' starts, computes A, P and U again, and applies the
chain rule to these four lines. The chunked form follows arXiv 2406.06484; letters as in
`delta_rule`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from slowwave.ops.chunks import (
    cut,
    decay_inside,
    gather_shared,
    grad_decay_inside,
    grad_decay_to_end,
    join,
    read_shared,
)
from slowwave.ops.linear import small_matmul, solve_unit_lower


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
    """As `gated_delta_rule`, for checked inputs of one dtype and T >= 1."""
    T = q.shape[1]
    size = min(chunk_size, T)
    repeats = v.shape[2] // q.shape[2]
    if keep_writes or size < T:
        state = state.repeat_interleave(q.shape[0] // state.shape[0], dim=0)
    q, k, v, log_decay, beta = (cut(x, size) for x in (q, k, v, log_decay, beta))
    q, k = (x.repeat_interleave(repeats, dim=1) for x in (q, k))
    out, state = _Chunks.apply(q, k, v, log_decay, beta, state, scale, keep_writes)
    return join(out, T), state


class _Chunk(NamedTuple):
    """What both directions know of all chunks; (B, G, chunks, ...) each."""

    between: Tensor
    """D: (..., C, C). The first three are `Decays`."""
    since: Tensor
    """(..., C, 1)"""
    to_end: Tensor
    """(..., C, 1)"""
    overlap: Tensor
    """k k^T: (..., C, C)."""
    system: Tensor
    """A, and on and above the diagonal what is never read: (..., C, C)."""
    attend: Tensor
    """P: (..., C, C)."""


def _prepare(q: Tensor, k: Tensor, log_decay: Tensor, beta: Tensor, scale: float) -> _Chunk:
    decay = decay_inside(log_decay)
    overlap = small_matmul(k, k.mT)
    return _Chunk(
        *decay,
        overlap=overlap,
        system=beta[..., None] * decay.between * overlap,
        attend=small_matmul(q, k.mT) * decay.between * scale,
    )


class _Chunks(torch.autograd.Function):
    """q, k (B, G, chunks, C, K), v (..., V), log_decay and beta (B, G, chunks, C); see `cut`.

    state: (B, G, K, V), or with one chunk and keep_writes=False (B / F, G, K, V).
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        log_decay: Tensor,
        beta: Tensor,
        state: Tensor,
        scale: float,
        keep_writes: bool,
    ) -> tuple[Tensor, Tensor]:
        chunk = _prepare(q, k, log_decay, beta, scale)
        wanted = torch.cat([v, chunk.since * k], dim=-1) * beta[..., None]
        from_value, from_state = solve_unit_lower(chunk.system, wanted).split(
            [v.shape[-1], k.shape[-1]], dim=-1
        )
        key = chunk.to_end * k
        starts, writes = [state], []
        for c in range(q.shape[2]):
            state = starts[-1]
            writes.append(from_value[:, :, c] - read_shared(from_state[:, :, c], state))
            if keep_writes or c + 1 < q.shape[2]:
                grown = chunk.since[:, :, c, -1:] * state + key[:, :, c].mT @ writes[-1]
                starts.append(grown)
        end = starts.pop() if keep_writes else state.new_empty(0)
        stacked, written = torch.stack(starts, dim=2), torch.stack(writes, dim=2)
        out = read_shared(scale * chunk.since * q, stacked) + small_matmul(chunk.attend, written)
        ctx.save_for_backward(q, k, v, log_decay, beta, stacked)
        ctx.scale = scale
        return out, end

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        grad_out, grad_end = gradients
        q, k, v, log_decay, beta, starts = ctx.saved_tensors
        scale = ctx.scale
        chunk = _prepare(q, k, log_decay, beta, scale)
        strength = beta[..., None]
        seen = chunk.since * k
        writes = solve_unit_lower(chunk.system, strength * (v - read_shared(seen, starts)))
        grad_wanted, grad_ends, grad_state = _walk_back(
            chunk,
            scale * chunk.since * q,
            chunk.to_end * k,
            strength * seen,
            grad_out,
            grad_end,
            rows=starts.shape[0],
        )

        read_by_q, read_by_k = read_shared(grad_out, starts.mT), read_shared(grad_wanted, starts.mT)
        grad_attend = small_matmul(grad_out, writes.mT)
        grad_system = -small_matmul(grad_wanted, writes.mT).tril(-1)
        by_decay = grad_attend * chunk.attend + grad_system * chunk.system
        by_overlap = grad_system * chunk.between
        from_start = (seen * read_by_k).sum(-1)
        grad_beta = (grad_wanted * v).sum(-1) - from_start + (by_overlap * chunk.overlap).sum(-1)
        read_at_start = (scale * chunk.since * q * read_by_q).sum(-1) - beta * from_start
        grad_decay = grad_decay_inside(by_decay, read_at_start)
        grad_products = scale * chunk.between * grad_attend
        grad_overlap = strength * by_overlap
        grad_q = small_matmul(grad_products, k) + scale * chunk.since * read_by_q
        grad_k = small_matmul(grad_products.mT, q) - strength * chunk.since * read_by_k
        grad_k = grad_k + small_matmul(grad_overlap + grad_overlap.mT, k)
        if grad_ends is not None:
            written_by_k = chunk.to_end * (writes @ grad_ends.mT)
            grad_k = grad_k + written_by_k
            kept = (k * written_by_k).sum(-1)
            grad_decay = grad_decay + grad_decay_to_end(kept, grad_ends, starts, chunk.since)
        grad_v = strength * grad_wanted
        return grad_q, grad_k, grad_v, grad_decay, grad_beta, grad_state, None, None


def _walk_back(
    chunk: _Chunk,
    query: Tensor,
    key: Tensor,
    seen: Tensor,
    grad_out: Tensor,
    grad_end: Tensor,
    *,
    rows: int,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """From the end state to the start: the part of the way back that goes chunk by chunk.

    query = scale since q, key = to_end k and seen = beta since k. Returns the gradients of
    beta (v - since k S), of the states at the chunks' ends (None if no chunk has one) and of the
    state given.
    """
    grad_writes = small_matmul(chunk.attend.mT, grad_out)
    wanted: list[Tensor] = []
    ends: list[Tensor | None] = []
    grad = grad_end if grad_end.numel() else None
    for c in reversed(range(query.shape[2])):
        ends.append(grad)
        pushed = grad_writes[:, :, c]
        if grad is not None:
            pushed = pushed + key[:, :, c] @ grad
        wanted.append(solve_unit_lower(chunk.system[:, :, c], pushed, transpose=True))
        gathered = gather_shared(query[:, :, c], grad_out[:, :, c], rows)
        gathered = gathered - gather_shared(seen[:, :, c], wanted[-1], rows)
        grad = gathered if grad is None else chunk.since[:, :, c, -1:] * grad + gathered
    assert grad is not None
    if len(ends) == 1 and ends[0] is None:
        return wanted[0][:, :, None], None, grad
    grad_ends = [torch.zeros_like(grad) if end is None else end for end in reversed(ends)]
    return torch.stack(wanted[::-1], dim=2), torch.stack(grad_ends, dim=2), grad
