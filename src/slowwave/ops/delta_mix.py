"""All that a Gated DeltaNet layer does between its projections, compiled where nobody trains.

`gated_mix` is the specification, differentiable and on any device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from slowwave.ops import native
from slowwave.ops.delta_rule import gated_delta_rule
from slowwave.ops.gated_mix import CHUNK_SIZE, MixWeights, conv_mix, conv_write
from slowwave.ops.norm import wide_dtype


def delta_mix(
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
    """Mixes T tokens through the fast weights.

    qkv: (B, T, C) with C = 2 H K + G V, before the convolution. gates: (B, T, 2 G), decay steps
    and write strengths. out_gate: (B, T, G V). tail: (B / F, w - 1, C) and fast_weights:
    (B / F, G, K, V), shared by every F rows. mask: (B, T) bool, False tokens leave no trace.
    keep_writes: False for questions; fast weights and tail come back as given.

    Returns (mixed (B, T, G V), fast_weights (B, G, K, V), tail (B, w - 1, C)).
    """
    if mask is None and _suits_native(fast_weights, qkv, gates, out_gate, tail):
        mixed, written = torch.ops.slowwave.delta_mix(
            qkv,
            gates,
            out_gate,
            weights.kernel,
            tail,
            weights.A_log,
            weights.dt_bias,
            weights.norm,
            fast_weights,
            weights.max_beta,
            weights.norm_eps,
            CHUNK_SIZE,
            keep_writes,
        )
        return (
            (mixed, written, _next_tail(tail, qkv)) if keep_writes else (mixed, fast_weights, tail)
        )
    return conv_mix(
        gated_delta_rule,
        qkv,
        gates,
        out_gate,
        tail,
        fast_weights,
        weights,
        mask=mask,
        keep_writes=keep_writes,
    )


def delta_write(
    kv: Tensor,
    gates: Tensor,
    tail: Tensor,
    fast_weights: Tensor,
    weights: MixWeights,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """The fast weights that `delta_mix` leaves, for tokens that nobody reads with.

    kv: (B, T, C) with C = H K + G V; the kernel of `weights` and the tail have these channels.
    """
    if mask is None and _suits_native(fast_weights, kv, gates, tail):
        _, written = torch.ops.slowwave.delta_mix(
            kv,
            gates,
            None,
            weights.kernel,
            tail,
            weights.A_log,
            weights.dt_bias,
            weights.norm,
            fast_weights,
            weights.max_beta,
            weights.norm_eps,
            CHUNK_SIZE,
            True,
        )
        return written
    return conv_write(gated_delta_rule, kv, gates, tail, fast_weights, weights, mask=mask)


def _suits_native(fast_weights: Tensor, x: Tensor, *others: Tensor) -> bool:
    """x (B, T, C): what is projected first; all but the fast weights have one dtype."""
    alike = all(other.dtype == x.dtype for other in others)
    wide = fast_weights.dtype == wide_dtype(x.dtype)
    return alike and wide and x.shape[0] > 0 and x.shape[1] > 0 and native.can_read(x)


def _next_tail(tail: Tensor, qkv: Tensor) -> Tensor:
    """The last inputs of the convolution, in memory of their own."""
    taps, T = tail.shape[1], qkv.shape[1]
    if taps <= T:
        return qkv[:, T - taps :].clone()
    rows = qkv.shape[0] // tail.shape[0]
    return torch.cat([tail.repeat_interleave(rows, dim=0), qkv], dim=1)[:, T:].clone()
