"""What recurrent layers do between their projections, whichever rule writes their fast weights.

Short convolution, SiLU and l2 norms make q, k and v (`delta_inputs`); A and dt make decays; the
rule reads and writes the fast weights; a gated norm weighs what was read. Source: Gated DeltaNet
(arXiv 2412.06464), as flash-linear-attention builds it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from slowwave.ops.delta_inputs import delta_inputs
from slowwave.ops.norm import rms_norm, wide_dtype

CHUNK_SIZE = 64

Rule = Callable[..., tuple[Tensor, Tensor]]
"""`gated_delta_rule`, or another of its signature."""


class MixWeights(NamedTuple):
    """What a layer has learned beside its projections.

    kernel: (C, w) of the short convolution. A_log, dt_bias: (G,). norm: (V,), with norm_eps.
    """

    kernel: Tensor
    A_log: Tensor
    dt_bias: Tensor
    norm: Tensor
    norm_eps: float
    max_beta: float


def conv_mix(
    rule: Rule,
    qkv: Tensor,
    gates: Tensor,
    out_gate: Tensor,
    tail: Tensor,
    fast_weights: Tensor,
    weights: MixWeights,
    *,
    mask: Tensor | None = None,
    keep_writes: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mixes T tokens through the fast weights: inputs and results as `delta_mix` has them."""
    G, K, V = fast_weights.shape[1:]
    rows = qkv.shape[0] // tail.shape[0]
    heads, v, new_tail = delta_inputs(
        qkv,
        weights.kernel,
        tail.repeat_interleave(rows, dim=0),
        num_values=G * V,
        key_dim=K,
        mask=mask,
    )
    q, k = heads.chunk(2, dim=2)
    gated, written = mix_heads(
        rule, q, k, v, gates, out_gate, fast_weights, weights, mask=mask, keep_writes=keep_writes
    )
    return gated, written, new_tail if keep_writes else tail


def conv_write(
    rule: Rule,
    kv: Tensor,
    gates: Tensor,
    tail: Tensor,
    fast_weights: Tensor,
    weights: MixWeights,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """The fast weights that `conv_mix` leaves: inputs as `delta_write` has them."""
    G, K, V = fast_weights.shape[1:]
    k, v, _ = delta_inputs(kv, weights.kernel, tail, num_values=G * V, key_dim=K, mask=mask)
    return write_heads(rule, k, v, gates, fast_weights, weights, mask=mask)


def mix_heads(
    rule: Rule,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: Tensor,
    out_gate: Tensor,
    fast_weights: Tensor,
    weights: MixWeights,
    *,
    mask: Tensor | None = None,
    keep_writes: bool = True,
) -> tuple[Tensor, Tensor]:
    """Gates, the rule and the norm of what it reads, for q, k and v that are made already.

    q, k: (B, T, H, K), l2-normalised. v: (B, T, G V).
    gates: (B, T, 2 G), decay steps and write strengths. out_gate: (B, T, G V). fast_weights:
    (B / F, G, K, V), shared by every F rows. mask: (B, T) bool, False tokens leave no trace.
    keep_writes: False for questions; the fast weights come back as given.

    Returns (mixed (B, T, G V), fast_weights (B, G, K, V)).
    """
    G, _, V = fast_weights.shape[1:]
    log_decay, beta = decay_and_strength(gates, weights)
    read, written = rule(
        q,
        k,
        v.unflatten(-1, (G, V)),
        log_decay,
        beta,
        fast_weights,
        mask=mask,
        chunk_size=CHUNK_SIZE,
        keep_writes=keep_writes,
    )
    gate = F.silu(out_gate.to(wide_dtype(out_gate.dtype))).unflatten(-1, (G, V))
    return (rms_norm(read, weights.norm, weights.norm_eps) * gate).flatten(2), written


def write_heads(
    rule: Rule,
    k: Tensor,
    v: Tensor,
    gates: Tensor,
    fast_weights: Tensor,
    weights: MixWeights,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """The fast weights that `mix_heads` leaves, for tokens that nobody reads with."""
    G, _, V = fast_weights.shape[1:]
    log_decay, beta = decay_and_strength(gates, weights)
    _, written = rule(
        k,
        k,
        v.unflatten(-1, (G, V)),
        log_decay,
        beta,
        fast_weights,
        mask=mask,
        chunk_size=CHUNK_SIZE,
    )
    return written


def decay_and_strength(gates: Tensor, weights: MixWeights) -> tuple[Tensor, Tensor]:
    """gates (B, T, 2 G) -> log_decay and beta, (B, T, G) each, wide."""
    wide = wide_dtype(gates.dtype)
    step, strength = gates.to(wide).chunk(2, dim=-1)
    log_decay = -weights.A_log.to(wide).exp() * F.softplus(step + weights.dt_bias.to(wide))
    return log_decay, weights.max_beta * torch.sigmoid(strength)
