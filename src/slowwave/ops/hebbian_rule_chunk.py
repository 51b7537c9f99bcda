"""The gated Hebbian rule in chunks of tokens, pure PyTorch on any device.

With the decays D, `since` and `to_end` of `chunks`, a chunk of C tokens that starts from the state
S does

    P = scale lower(D_ij q_i.k_j)              U = beta v
    out = scale since q S + P U                the reads
    S <- since_C S + (to_end k)^T U            the state at its end

Everything is batched over rows, heads and chunks; only the states are added up one after the
other. The way back keeps the inputs and the states at the chunks' starts, computes the rest again
and applies the chain rule to these lines. The chunked form is that of arXiv 2405.21060; letters as
in `hebbian_rule`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
from slowwave.ops.linear import small_matmul


def hebbian_rule_in_chunks(
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
    """As `gated_hebbian_rule`, for checked inputs and T >= 1; v may be narrower than the rest."""
    size = min(chunk_size, q.shape[1])
    if keep_writes or size < q.shape[1]:
        state = state.repeat_interleave(q.shape[0] // state.shape[0], dim=0)
    # A view of k: torch.compile takes no tensor twice, and who only writes gives k for q too.
    return _Chunks.apply(q, k.view_as(k), v, log_decay, beta, state, scale, size, keep_writes)


class _Chunks(torch.autograd.Function):
    """Inputs as `gated_hebbian_rule` has them, so that no copy of them is kept for the way back.

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
        size: int,
        keep_writes: bool,
    ) -> tuple[Tensor, Tensor]:
        inputs = q, k, v, log_decay, beta
        q, k, v, log_decay, beta = _cut_all(inputs, size)
        decay = decay_inside(log_decay)
        query, writes = scale * q, beta[..., None] * v
        attend = decay.between * small_matmul(query, k.mT)
        updates = q.shape[2] if keep_writes else q.shape[2] - 1
        grown = (decay.to_end * k)[:, :, :updates].mT @ writes[:, :, :updates]
        starts = [state]
        for c in range(updates):
            starts.append(decay.since[:, :, c, -1:] * starts[-1] + grown[:, :, c])
        end = starts.pop() if keep_writes else state.new_empty(0)
        stacked = torch.stack(starts, dim=2)
        out = read_shared(decay.since * query, stacked) + small_matmul(attend, writes)
        ctx.save_for_backward(*inputs, stacked)
        ctx.scale, ctx.size = scale, size
        # A view would keep what fills the last chunk.
        return join(out, inputs[0].shape[1]).contiguous(), end

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        grad_out, grad_end = gradients
        *inputs, starts = ctx.saved_tensors
        scale, (T, H) = ctx.scale, inputs[0].shape[1:3]
        q, k, v, log_decay, beta = _cut_all(inputs, ctx.size)
        grad_out = cut(grad_out, ctx.size)
        decay = decay_inside(log_decay)
        query, writes = scale * q, beta[..., None] * v
        attend = decay.between * small_matmul(query, k.mT)
        seen = decay.since * query
        grad_ends, grad_state = _walk_back(seen, grad_out, grad_end, decay.since, starts.shape[0])

        read_by_q = read_shared(grad_out, starts.mT)
        grad_attend = small_matmul(grad_out, writes.mT)
        grad_writes = small_matmul(attend.mT, grad_out)
        grad_decay = grad_decay_inside(grad_attend * attend, (seen * read_by_q).sum(-1))
        grad_products = decay.between * grad_attend
        grad_q = scale * (small_matmul(grad_products, k) + decay.since * read_by_q)
        grad_k = small_matmul(grad_products.mT, query)
        if grad_ends is not None:
            grad_writes = grad_writes + (decay.to_end * k) @ grad_ends
            written_by_k = decay.to_end * (writes @ grad_ends.mT)
            grad_k = grad_k + written_by_k
            kept = (k * written_by_k).sum(-1)
            grad_decay = grad_decay + grad_decay_to_end(kept, grad_ends, starts, decay.since)
        grad_v, grad_beta = beta[..., None] * grad_writes, (grad_writes * v).sum(-1)
        grad_q, grad_k = (x.unflatten(1, (H, -1)).sum(2) for x in (grad_q, grad_k))
        grads = (grad_q, grad_k, grad_v, grad_decay, grad_beta)
        joined = (join(x, T).to(given.dtype) for x, given in zip(grads, inputs, strict=True))
        return *joined, grad_state, None, None, None


def _cut_all(inputs: Sequence[Tensor], size: int) -> list[Tensor]:
    """q, k, v and gates in chunks, in the dtype of q; q and k repeated for their value heads."""
    q, k, v, *gates = (cut(x.to(inputs[0].dtype), size) for x in inputs)
    repeats = v.shape[1] // q.shape[1]
    return [*(x.repeat_interleave(repeats, dim=1) for x in (q, k)), v, *gates]


def _walk_back(
    seen: Tensor, grad_out: Tensor, grad_end: Tensor, since: Tensor, rows: int
) -> tuple[Tensor | None, Tensor]:
    """From the end state to the start: what reads of every chunk's start add, decayed.

    seen = scale since q. Returns the gradients of the states at the chunks' ends (None if no chunk
    has one) and of the state given.
    """
    ends: list[Tensor | None] = []
    grad = grad_end if grad_end.numel() else None
    for c in reversed(range(seen.shape[2])):
        ends.append(grad)
        gathered = gather_shared(seen[:, :, c], grad_out[:, :, c], rows)
        grad = gathered if grad is None else since[:, :, c, -1:] * grad + gathered
    assert grad is not None
    if len(ends) == 1 and ends[0] is None:
        return None, grad
    whole = [torch.zeros_like(grad) if end is None else end for end in reversed(ends)]
    return torch.stack(whole, dim=2), grad
