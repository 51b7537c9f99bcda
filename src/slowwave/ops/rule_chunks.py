"""The gated rules in chunks of tokens, pure PyTorch on any device.

With D_ij = exp(sum of log_decay over j+1..i), `since` the same from the chunk's start to a token
and `to_end` from a token to its end, a chunk of C tokens that starts from the state S does

    A = strict_lower(beta_i D_ij k_i.k_j)      P = scale lower(D_ij q_i.k_j)
    (I + A) U = beta (v - since k S)           the writes; U = beta v where nothing is corrected
    out = scale since q S + P U                the reads
    S <- since_C S + (to_end k)^T U            the state at its end

Everything but the walk from state to state is batched over rows, heads and chunks. The way back
keeps the inputs and the states at the chunks' starts, computes A, P and U again, and applies the
chain rule to these four lines. The chunked form follows arXiv 2406.06484 (delta rule) and arXiv
2405.21060 (Hebbian rule); letters as in `gated_rules`. What is cut into chunks has the axes
(B, G, chunks, C, ...).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from slowwave.ops.linear import small_matmul, solve_unit_lower


def rule_in_chunks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor,
    scale: float,
    chunk_size: int,
    keep_writes: bool,
    *,
    corrects: bool,
) -> tuple[Tensor, Tensor]:
    """As a rule of `gated_rules`, for checked inputs and T >= 1; v may be narrower than the rest.

    corrects: whether a token writes what its key does not read yet (the delta rule), or its value
    as it is (the Hebbian rule).
    """
    size = min(chunk_size, q.shape[1])
    if keep_writes or size < q.shape[1]:
        state = state.repeat_interleave(q.shape[0] // state.shape[0], dim=0)
    # A view of k: torch.compile takes no tensor twice, and who only writes gives k for q too.
    return _Chunks.apply(
        q, k.view_as(k), v, log_decay, beta, state, scale, size, keep_writes, corrects
    )


class _Chunks(torch.autograd.Function):
    """Inputs as the rules have them, so that no copy of them is kept for the way back.

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
        corrects: bool,
    ) -> tuple[Tensor, Tensor]:
        inputs = q, k, v, log_decay, beta
        q, k, v, log_decay, beta = _cut_all(inputs, size)
        decay, strength = _decay_inside(log_decay), beta[..., None]
        if corrects:
            system = strength * decay.between * small_matmul(k, k.mT)
            wanted = torch.cat([v, decay.since * k], dim=-1) * strength
            solved = solve_unit_lower(system, wanted)
            writes, from_state = solved.split([v.shape[-1], k.shape[-1]], dim=-1)
        else:
            writes, from_state = strength * v, None
        key = decay.to_end * k
        starts = [state]
        corrected: list[Tensor] = []  # dynamo traces no list[Tensor]()
        for c in range(q.shape[2]):
            write = writes[:, :, c]
            if from_state is not None:
                write = write - _read_shared(from_state[:, :, c], starts[-1])
                corrected.append(write)
            if keep_writes or c + 1 < q.shape[2]:
                starts.append(decay.since[:, :, c, -1:] * starts[-1] + key[:, :, c].mT @ write)
        end = starts.pop() if keep_writes else state.new_empty(0)
        stacked = torch.stack(starts, dim=2)
        if corrects:
            writes = torch.stack(corrected, dim=2)
        attend = small_matmul(q, k.mT) * decay.between * scale
        out = _read_shared(scale * decay.since * q, stacked) + small_matmul(attend, writes)
        ctx.save_for_backward(*inputs, stacked)
        ctx.scale, ctx.size, ctx.corrects = scale, size, corrects
        # A view would keep what fills the last chunk.
        return _join(out, inputs[0].shape[1]).contiguous(), end

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        grad_out, grad_end = gradients
        *inputs, starts = ctx.saved_tensors
        scale, corrects, (T, H) = ctx.scale, ctx.corrects, inputs[0].shape[1:3]
        q, k, v, log_decay, beta = _cut_all(inputs, ctx.size)
        grad_out = _cut(grad_out, ctx.size)
        decay, strength = _decay_inside(log_decay), beta[..., None]
        attend = small_matmul(q, k.mT) * decay.between * scale
        query = scale * decay.since * q
        correction = None
        if corrects:
            overlap, seen = small_matmul(k, k.mT), decay.since * k
            correction = _Correction(overlap, strength * decay.between * overlap, strength * seen)
            missing = strength * (v - _read_shared(seen, starts))
            writes = solve_unit_lower(correction.system, missing)
        else:
            writes = strength * v
        grad_wanted, grad_ends, grad_state = _walk_back(
            query,
            decay.to_end * k,
            decay.since,
            small_matmul(attend.mT, grad_out),
            correction,
            grad_out,
            grad_end,
            rows=starts.shape[0],
        )

        read_by_q = _read_shared(grad_out, starts.mT)
        grad_attend = small_matmul(grad_out, writes.mT)
        grad_products = scale * decay.between * grad_attend
        grad_q = small_matmul(grad_products, k) + scale * decay.since * read_by_q
        grad_k = small_matmul(grad_products.mT, q)
        grad_beta = (grad_wanted * v).sum(-1)
        by_decay, at_start = grad_attend * attend, (query * read_by_q).sum(-1)
        if correction is not None:
            read_by_k = _read_shared(grad_wanted, starts.mT)
            grad_system = -small_matmul(grad_wanted, writes.mT).tril(-1)
            by_overlap = grad_system * decay.between
            from_start = (decay.since * k * read_by_k).sum(-1)
            grad_beta = grad_beta - from_start + (by_overlap * correction.overlap).sum(-1)
            by_decay = by_decay + grad_system * correction.system
            at_start = at_start - beta * from_start
            grad_overlap = strength * by_overlap
            grad_k = grad_k - strength * decay.since * read_by_k
            grad_k = grad_k + small_matmul(grad_overlap + grad_overlap.mT, k)
        grad_decay = _grad_decay_inside(by_decay, at_start)
        if grad_ends is not None:
            written_by_k = decay.to_end * (writes @ grad_ends.mT)
            grad_k = grad_k + written_by_k
            kept = (k * written_by_k).sum(-1)
            grad_decay = grad_decay + _grad_decay_to_end(kept, grad_ends, starts, decay.since)
        if v.shape[1] > H:
            grad_q, grad_k = (x.unflatten(1, (H, -1)).sum(2) for x in (grad_q, grad_k))
        grads = (grad_q, grad_k, strength * grad_wanted, grad_decay, grad_beta)
        joined = (_join(x, T).to(given.dtype) for x, given in zip(grads, inputs, strict=True))
        return *joined, grad_state, None, None, None, None


class _Correction(NamedTuple):
    """What the delta rule subtracts from its values, for all chunks."""

    overlap: Tensor
    """k k^T: (..., C, C)."""
    system: Tensor
    """A, and on and above the diagonal what is never read: (..., C, C)."""
    seen: Tensor
    """beta since k: (..., C, K)."""


def _walk_back(
    query: Tensor,
    key: Tensor,
    since: Tensor,
    grad_writes: Tensor,
    correction: _Correction | None,
    grad_out: Tensor,
    grad_end: Tensor,
    *,
    rows: int,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """From the end state to the start: the part of the way back that goes chunk by chunk.

    query = scale since q, key = to_end k. grad_writes: what comes to the writes U from within their
    chunk. Returns the gradients of beta (v - since k S), of the states at the chunks' ends (None if
    no chunk has one) and of the state given.
    """
    wanted: list[Tensor] = []
    ends: list[Tensor | None] = []
    grad = grad_end if grad_end.numel() else None
    for c in reversed(range(query.shape[2])):
        ends.append(grad)
        pushed = grad_writes[:, :, c]
        if grad is not None:
            pushed = pushed + key[:, :, c] @ grad
        gathered = _gather_shared(query[:, :, c], grad_out[:, :, c], rows)
        if correction is not None:
            pushed = solve_unit_lower(correction.system[:, :, c], pushed, transpose=True)
            gathered = gathered - _gather_shared(correction.seen[:, :, c], pushed, rows)
        wanted.append(pushed)
        grad = gathered if grad is None else since[:, :, c, -1:] * grad + gathered
    assert grad is not None
    if len(ends) == 1 and ends[0] is None:
        return wanted[0][:, :, None], None, grad
    grad_ends = [torch.zeros_like(grad) if end is None else end for end in reversed(ends)]
    return torch.stack(wanted[::-1], dim=2), torch.stack(grad_ends, dim=2), grad


def _cut_all(inputs: Sequence[Tensor], size: int) -> list[Tensor]:
    """q, k, v and gates in chunks, in the dtype of q; q and k repeated for their value heads."""
    q, k, v, *gates = (_cut(x.to(inputs[0].dtype), size) for x in inputs)
    repeats = v.shape[1] // q.shape[1]
    if repeats > 1:
        q, k = (x.repeat_interleave(repeats, dim=1) for x in (q, k))
    return [q, k, v, *gates]


class _Decays(NamedTuple):
    """How much is left of what was there: exp of the decays in between, for all chunks."""

    between: Tensor
    """From token j to token i, zero above the diagonal: (..., C, C)."""
    since: Tensor
    """From the chunk's start to a token: (..., C, 1)."""
    to_end: Tensor
    """From a token to the chunk's end: (..., C, 1)."""


def _cut(x: Tensor, size: int) -> Tensor:
    """(B, T, heads, ...) -> (B, heads, chunks, size, ...); the last chunk is filled with zeros."""
    B, T = x.shape[:2]
    missing = -T % size
    if missing:
        x = torch.cat([x, x.new_zeros(B, missing, *x.shape[2:])], dim=1)
    return x.unflatten(1, (-1, size)).movedim(3, 1).contiguous()


def _join(x: Tensor, num_tokens: int) -> Tensor:
    """The way back of `_cut`, for `num_tokens` tokens."""
    return x.flatten(2, 3).transpose(1, 2)[:, :num_tokens]


def _decay_inside(log_decay: Tensor) -> _Decays:
    """log_decay: (..., C)."""
    size = log_decay.shape[-1]
    lower = torch.ones(size, size, dtype=torch.bool, device=log_decay.device).tril()
    # Summed anew for every pair: a difference of two totals cancels when single tokens decay hard.
    steps = log_decay[..., :, None].expand(*log_decay.shape, size).masked_fill(~lower.tril(-1), 0.0)
    between = steps.cumsum(-2).masked_fill(~lower, -torch.inf).exp()
    return _Decays(
        between=between,
        since=log_decay.cumsum(-1).exp()[..., None],
        to_end=between[..., -1, :, None],
    )


def _grad_decay_inside(pairs: Tensor, at_start: Tensor) -> Tensor:
    """The gradient of log_decay (..., C) through what tokens read of their own chunk and its start.

    pairs: (..., C, C), what came through `between` of i and j, times it. at_start: (..., C), what
    came through `since` of i, times it. Past token t decay pairs j < t <= i and reads at i >= t.
    Differences of larger sums would cancel, see `_decay_inside`.
    """
    return _sum_from(pairs, -2).tril(-1).sum(-1) + _sum_from(at_start, -1)


def _grad_decay_to_end(kept: Tensor, grad_ends: Tensor, starts: Tensor, since: Tensor) -> Tensor:
    """The gradient of log_decay (..., C) through the state (..., K, V) at the chunk's end.

    kept: (..., C), what came through `to_end` of j, times it: writes at j < t decay past token t.
    """
    earlier = F.pad(kept.cumsum(-1)[..., :-1], (1, 0))
    return earlier + since[..., -1, :] * (grad_ends * starts).sum((-2, -1))[..., None]


def _sum_from(x: Tensor, dim: int) -> Tensor:
    """Sums from each place to the end of `dim`."""
    return x.flip(dim).cumsum(dim).flip(dim)


def _read_shared(keys: Tensor, state: Tensor) -> Tensor:
    """keys (B, G, ..., C, K) @ state (B / F, G, ..., K, V), not copying what F rows share."""
    rows = state.shape[0]
    shared = keys.shape[0] // rows
    read = _fold(keys, rows) @ state
    if shared == 1:
        return read
    return read.unflatten(-2, (shared, -1)).movedim(-3, 1).flatten(0, 1)


def _gather_shared(keys: Tensor, values: Tensor, rows: int) -> Tensor:
    """keys^T @ values, summed over the F of B rows that share one of `rows` states."""
    return _fold(keys, rows).mT @ _fold(values, rows)


def _fold(x: Tensor, rows: int) -> Tensor:
    """(B, G, ..., C, size) -> (rows, G, ..., B / rows * C, size)."""
    if x.shape[0] == rows:
        return x
    return x.unflatten(0, (rows, -1)).movedim(1, -3).flatten(-3, -2)
