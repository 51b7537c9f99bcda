"""What recurrent layers do between their projections, whichever rule writes their fast weights.

Short convolution, SiLU and l2 norms make q, k and v (`delta_inputs`); A and dt make decays; the
rule reads and writes the fast weights; a gated norm weighs what was read. Source: Gated DeltaNet
(arXiv 2412.06464), as flash-linear-attention builds it.

`delta_mix` and `delta_write` are compiled where nothing is trained. `conv_mix` and `conv_write` are
their specification, differentiable, for any rule and on any device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from slowwave.ops import native
from slowwave.ops.convolution import short_conv
from slowwave.ops.gated_rules import gated_delta_rule
from slowwave.ops.norm import l2_norm, rms_norm, wide_dtype

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
    if mask is None and _mixes_native(fast_weights, qkv, gates, out_gate, tail):
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
    if mask is None and _mixes_native(fast_weights, kv, gates, tail):
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


def _mixes_native(fast_weights: Tensor, x: Tensor, *others: Tensor) -> bool:
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


def delta_inputs(
    x: Tensor,
    kernel: Tensor,
    tail: Tensor,
    *,
    num_values: int,
    key_dim: int,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Splits x into heads of keys (or of queries and keys) and the values after them.

    x: (B, T, C), its last num_values channels are values. kernel: (C, w). tail: (B, w-1, C), the
    inputs before x. mask: (B, T) bool, see `short_conv`.

    Returns (keys (B, T, (C - num_values) / K, K), wide; values (B, T, num_values); new tail).
    """
    num_keys = x.shape[2] - num_values
    if mask is None and _convolves_native(x, kernel, tail):
        keys, values = torch.ops.slowwave.delta_inputs(x, kernel, tail, num_keys, key_dim)
        taps = tail.shape[1]
        new_tail = torch.cat([tail, x[:, -taps:]], dim=1)[:, -taps:]
        return keys.unflatten(-1, (-1, key_dim)), values, new_tail
    return _compose_inputs(x, kernel, tail, num_keys=num_keys, key_dim=key_dim, mask=mask)


def _convolves_native(x: Tensor, kernel: Tensor, tail: Tensor) -> bool:
    alike = x.dtype == tail.dtype and kernel.dtype == wide_dtype(x.dtype)
    return alike and native.can_train(x)


def _compose_inputs(
    x: Tensor,
    kernel: Tensor,
    tail: Tensor,
    *,
    num_keys: int,
    key_dim: int,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Step by step: the specification, on any device."""
    mixed, new_tail = short_conv(x, kernel.to(x.dtype), tail, mask)
    keys, values = F.silu(mixed).split([num_keys, x.shape[2] - num_keys], dim=-1)
    return l2_norm(keys.unflatten(-1, (-1, key_dim))), values, new_tail
