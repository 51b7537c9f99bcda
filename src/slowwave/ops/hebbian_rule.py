"""The gated Hebbian rule: the specification, token by token, and the choice of a faster backend.

For every value head, with the state S of shape (K, V) starting from the given one:

    S   <- exp(log_decay_t) S                forget
    S   <- S + beta_t k_t v_t^T              write, whatever k_t reads already
    o_t  = scale * S^T q_t                   read, after the write

Source: equation 3 of arXiv 2605.26099; linear attention with a scalar gate. Mamba-2 (arXiv
2405.21060) is this rule with q, k, v for its C, B, x, beta for its step dt and log_decay = A dt.
What it lacks beside `delta_rule` is the correction: two values written with one key add up.
Backends: "reference" is the specification, "chunk" (`hebbian_rule_chunk`) is for any device.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from slowwave.ops.hebbian_rule_chunk import hebbian_rule_in_chunks
from slowwave.ops.norm import wide_dtype
from slowwave.ops.rule_inputs import check_rule_inputs

HebbianBackend = Literal["reference", "chunk"]


def gated_hebbian_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    scale: float | None = None,
    chunk_size: int = 64,
    backend: HebbianBackend = "chunk",
    keep_writes: bool = True,
) -> tuple[Tensor, Tensor]:
    """Reads and writes the fast weights of all heads along a sequence.

    q, k: (B, T, H, K). v: (B, T, G, V), G a multiple of H; value head g uses query/key head
    g // (G / H). log_decay <= 0 and beta: (B, T, G). state: (B, G, K, V) or None for zeros; with
    (B / F, G, K, V), every F consecutive rows start from one state. mask: (B, T) bool, a False
    token neither decays nor writes. scale: K**-0.5 unless given.
    keep_writes: False for questions whose writes nobody will read; the state given comes back.

    Returns (out (B, T, G, V) in the dtype of v, state (B, G, K, V) float32, or float64 for
    float64 inputs). Raises ValueError on shapes that do not fit and on an unknown backend.
    """
    check_rule_inputs(q, k, v, log_decay, beta, state, mask, chunk_size)
    B, T, _, K = q.shape
    G, V = v.shape[2:]
    wide = wide_dtype(v.dtype)
    if state is None:
        state = v.new_zeros(B, G, K, V, dtype=wide)
    if mask is not None:
        log_decay = log_decay.masked_fill(~mask[..., None], 0.0)
        beta = beta.masked_fill(~mask[..., None], 0.0)
    scale = math.pow(K, -0.5) if scale is None else scale
    if B == 0 or T == 0:
        rows = B // max(1, state.shape[0])
        return torch.zeros_like(v), state.repeat_interleave(rows, dim=0) if keep_writes else state
    q, k, log_decay, beta, given = (x.to(wide) for x in (q, k, log_decay, beta, state))
    match backend:
        case "reference":
            out, written = _recurrent(q, k, v.to(wide), log_decay, beta, given, scale)
        case "chunk":
            out, written = hebbian_rule_in_chunks(
                q, k, v, log_decay, beta, given, scale, chunk_size, keep_writes
            )
        case _:
            known = ", ".join(get_args(HebbianBackend))
            raise ValueError(f"backend must be one of {known}, got {backend!r}; pick one")
    return out.to(v.dtype), written if keep_writes else state


def _recurrent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Token by token: the specification."""
    state = state.repeat_interleave(q.shape[0] // state.shape[0], dim=0)
    repeats = v.shape[2] // q.shape[2]
    q, k = q.repeat_interleave(repeats, dim=2), k.repeat_interleave(repeats, dim=2)
    outs: list[Tensor] = []
    for t in range(q.shape[1]):
        state = log_decay[:, t, :, None, None].exp() * state
        write = beta[:, t, :, None] * v[:, t]
        state = state + k[:, t, :, :, None] * write[:, :, None, :]
        outs.append(scale * torch.einsum("bgkv,bgk->bgv", state, q[:, t]))
    return torch.stack(outs, dim=1), state
