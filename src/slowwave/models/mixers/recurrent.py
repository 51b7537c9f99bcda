"""What all recurrent layers are made of: projections, gates, decays, a convolution, a state.

Source: Gated DeltaNet (arXiv 2412.06464) as flash-linear-attention builds it: one decay and one
write strength a value head, a gated norm on the way out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from slowwave.models.config import ModelConfig
from slowwave.models.linear import Linear, RMSNorm
from slowwave.models.mixers.mixer import Context, Mixer, product_flops
from slowwave.ops.gated_mix import (
    CHUNK_SIZE,
    MixWeights,
    conv_mix,
    conv_write,
    decay_and_strength,
    delta_inputs,
    delta_mix,
    delta_write,
)
from slowwave.ops.gated_rules import gated_hebbian_rule
from slowwave.ops.linear import linear
from slowwave.ops.norm import wide_dtype
from slowwave.ops.ridge import ridge_fit
from slowwave.state import FastWeights, LayerState


class RecurrentLayer(Mixer):
    """Reads and writes a (K, V) matrix a value head; `mix` and `write_only` say how."""

    has_midterm: ClassVar[bool] = True

    def __init__(self, sizes: ModelConfig) -> None:
        super().__init__(sizes)
        width, num_value_heads = sizes.width, sizes.value_heads
        self.num_heads, self.num_value_heads = sizes.delta_heads, num_value_heads
        self.key_dim, self.value_dim = sizes.key_dim, sizes.value_dim
        self.conv_width, self.max_beta = sizes.conv_width, sizes.max_beta
        keys, values = sizes.delta_heads * sizes.key_dim, num_value_heads * sizes.value_dim
        self.sections = [keys, keys, values]
        self.qkv = Linear(width, *self.sections)
        self.conv = nn.Parameter(torch.empty(self.conv_channels, sizes.conv_width))
        self.gates = Linear(width, num_value_heads, num_value_heads)
        self.A_log = nn.Parameter(torch.empty(num_value_heads))
        self.dt_bias = nn.Parameter(torch.empty(num_value_heads))
        self.out_gate = Linear(width, values)
        self.out_norm = RMSNorm(sizes.value_dim, eps=sizes.traits.out_norm_eps)
        self.out = Linear(values, width)

    @property
    def conv_channels(self) -> int:
        """Channels C of the convolution: queries, keys and values."""
        return sum(self.sections)

    def reset(self, generator: torch.Generator, sizes: ModelConfig) -> None:
        """Draws decays and convolution as fla does, whose initial_decay is 16.

        A ~ U(0, initial_decay) and dt log-uniform in [1e-3, 0.1] spread the memory's half-life over
        heads; the convolution is uniform within 1 / sqrt(width), as `nn.Conv1d` draws it.
        """
        with torch.no_grad():
            self.A_log.uniform_(1e-4, sizes.initial_decay, generator=generator).log_()
            dt = self.dt_bias.uniform_(math.log(1e-3), math.log(0.1), generator=generator).exp()
            dt = dt.clamp(min=1e-4)
            self.dt_bias.copy_(dt + torch.log(-torch.expm1(-dt)))
            bound = self.conv_width**-0.5
            self.conv.uniform_(-bound, bound, generator=generator)

    def initial_state(self, batch_size: int) -> FastWeights:
        """Zero fast weights and an empty convolution tail for `batch_size` streams."""
        weight = self.qkv.weight
        shape = (batch_size, self.num_value_heads, self.key_dim, self.value_dim)
        fast_weights = torch.zeros(shape, device=weight.device, dtype=wide_dtype(weight.dtype))
        dtype = self.qkv.compute_dtype or weight.dtype
        tail = torch.zeros(
            batch_size, self.conv_width - 1, self.conv_channels, device=weight.device, dtype=dtype
        )
        return FastWeights(fast_weights, tail)

    def forward(self, x: Tensor, state: LayerState, context: Context) -> tuple[Tensor, LayerState]:
        """See `Mixer.forward`: tokens are written into the fast weights and read back."""
        assert isinstance(state, FastWeights)
        mixed, after = self.mix(x, state, context)
        if context.ridge is not None:
            after = FastWeights(self.fit(x, state, context), after.conv_tail)
        return self.out(mixed), after if context.keep_state else state

    def write(self, x: Tensor, state: LayerState, context: Context) -> LayerState:
        """See `Mixer.write`. The convolution's tail stays as it was given."""
        assert isinstance(state, FastWeights)
        if context.ridge is not None:
            return FastWeights(self.fit(x, state, context), state.conv_tail)
        return FastWeights(self.write_only(x, state, context.mask), state.conv_tail)

    def fit(self, x: Tensor, state: FastWeights, context: Context) -> Tensor:
        """The fast weights (B, G, K, V) that fit the tokens' values on their keys."""
        assert context.ridge is not None
        k, v = self.pairs(x, state, context.mask)
        log_decay, beta = decay_and_strength(self.gates(x), self.mix_weights)
        heads = v.unflatten(-1, (self.num_value_heads, self.value_dim))
        return ridge_fit(
            k, heads, log_decay, beta, state.weights, penalty=context.ridge, mask=context.mask
        )

    def mix(self, x: Tensor, state: FastWeights, context: Context) -> tuple[Tensor, FastWeights]:
        """x (B, T, D) -> (what was read (B, T, G V), state)."""
        raise NotImplementedError

    def write_only(self, x: Tensor, state: FastWeights, mask: Tensor | None) -> Tensor:
        """The fast weights that `mix` leaves, (B, G, K, V), of tokens without a reader."""
        raise NotImplementedError

    def pairs(self, x: Tensor, state: FastWeights, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (B, T, D) -> keys (B, T, H, K), wide and l2-normalised, and values (B, T, G V)."""
        raise NotImplementedError

    def keys_and_values(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, H K + G V): the projections of `qkv` without its queries."""
        weight = self.qkv.narrow_weight()[self.sections[0] :]
        return linear(x.to(weight.dtype), weight)

    @property
    def mix_weights(self) -> MixWeights:
        """What is learned beside the projections."""
        return MixWeights(
            kernel=self.conv,
            A_log=self.A_log,
            dt_bias=self.dt_bias,
            norm=self.out_norm.weight,
            norm_eps=self.out_norm.eps,
            max_beta=self.max_beta,
        )

    @classmethod
    def forward_flops(cls, sizes: ModelConfig, T: int, *, cached: int, context: Context) -> int:
        """See `Mixer.forward_flops`: projections, kernels, the rule, and a fit's keys once more."""
        values = sizes.value_heads * sizes.value_dim
        gate_and_out = product_flops(T, sizes.width, values) + product_flops(T, values, sizes.width)
        fit = cls.write_flops(sizes, T, context=context) if context.ridge is not None else 0
        rule = cls.rule_flops(sizes, T, keep_writes=context.keep_state)
        return cls._inputs_flops(sizes, T, num_sections=2) + gate_and_out + rule + fit

    @classmethod
    def write_flops(cls, sizes: ModelConfig, T: int, *, context: Context) -> int:
        """See `Mixer.write_flops`: projections without queries, kernels, the rule or the fit."""
        inputs = cls._inputs_flops(sizes, T, num_sections=1)
        if context.ridge is not None:
            return inputs + ridge_flops(sizes, T)
        return inputs + cls.rule_flops(sizes, T, keep_writes=True)

    @classmethod
    def state_flops(cls, sizes: ModelConfig, T: int, *, context: Context) -> int:
        """See `Mixer.state_flops`."""
        if context.ridge is not None:
            return cls.write_flops(sizes, T, context=context)
        rule = cls.rule_flops(sizes, T, keep_writes=True)
        return cls._inputs_flops(sizes, T, num_sections=2) + rule

    @classmethod
    def _inputs_flops(cls, sizes: ModelConfig, T: int, *, num_sections: int) -> int:
        """Projections to values, gates and `num_sections` of queries and keys; kernels."""
        keys, values = sizes.delta_heads * sizes.key_dim, sizes.value_heads * sizes.value_dim
        columns = num_sections * keys + values + 2 * sizes.value_heads
        return product_flops(T, sizes.width, columns) + cls.kernel_flops(sizes, T)

    @classmethod
    def kernel_flops(cls, sizes: ModelConfig, T: int) -> int:
        """FLOPs of making the convolution's kernels."""
        return 0

    @classmethod
    def rule_flops(cls, sizes: ModelConfig, T: int, *, keep_writes: bool) -> int:
        """FLOPs of the rule alone."""
        raise NotImplementedError


class ConvolvedLayer(RecurrentLayer):
    """A rule behind a short convolution of queries, keys and values alike."""

    mix_op: Callable[..., tuple[Tensor, Tensor, Tensor]]
    write_op: Callable[..., Tensor]

    def mix(self, x: Tensor, state: FastWeights, context: Context) -> tuple[Tensor, FastWeights]:
        """See `RecurrentLayer.mix`."""
        mixed, weights, tail = self.mix_op(
            self.qkv(x),
            self.gates(x),
            self.out_gate(x),
            state.conv_tail,
            state.weights,
            self.mix_weights,
            mask=context.mask,
            keep_writes=context.keep_state,
        )
        return mixed, FastWeights(weights, tail)

    def write_only(self, x: Tensor, state: FastWeights, mask: Tensor | None) -> Tensor:
        """See `RecurrentLayer.write_only`."""
        skipped, learned = self.sections[0], self.mix_weights
        return self.write_op(
            self.keys_and_values(x),
            self.gates(x),
            state.conv_tail[..., skipped:],
            state.weights,
            learned._replace(kernel=learned.kernel[skipped:]),
            mask=mask,
        )

    def pairs(self, x: Tensor, state: FastWeights, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `RecurrentLayer.pairs`."""
        keys, values, _ = delta_inputs(
            self.keys_and_values(x),
            self.conv[self.sections[0] :],
            state.conv_tail[..., self.sections[0] :],
            num_values=self.sections[-1],
            key_dim=self.key_dim,
            mask=mask,
        )
        return keys, values


class GatedDeltaNet(ConvolvedLayer):
    """The delta rule: it writes what a key should read but does not yet (arXiv 2412.06464).

    The only recurrent layer that reads a token in one compiled call.
    """

    mix_op = staticmethod(delta_mix)
    write_op = staticmethod(delta_write)

    def weights(self) -> list[Tensor | None]:
        """See `Mixer.weights`."""
        projections = [*self.qkv.parts(), *self.gates.parts(), *self.out_gate.parts()]
        learned = [self.conv, self.A_log, self.dt_bias, self.out_norm.weight]
        return [*projections, *learned, *self.out.parts()]

    @classmethod
    def rule_flops(cls, sizes: ModelConfig, T: int, *, keep_writes: bool) -> int:
        """See `RecurrentLayer.rule_flops`."""
        return delta_rule_flops(sizes, T, keep_writes=keep_writes)


class GatedHebbian(ConvolvedLayer):
    """The Hebbian rule: linear attention with a decay, the rule of Mamba-2.

    It differs from `GatedDeltaNet` by the delta correction and by nothing else. Mamba-2 itself
    (arXiv 2405.21060) also leaves q and k as long as they are, shares them between many heads, adds
    a multiple of v to what is read and norms all heads together: none of it concerns the rule. It
    ties the write strength to the decay (both come from its step dt); equation 3 of arXiv
    2605.26099 leaves both free, and so do we.
    """

    mix_op = staticmethod(functools.partial(conv_mix, gated_hebbian_rule))
    write_op = staticmethod(functools.partial(conv_write, gated_hebbian_rule))

    @classmethod
    def rule_flops(cls, sizes: ModelConfig, T: int, *, keep_writes: bool) -> int:
        """See `RecurrentLayer.rule_flops`."""
        return hebbian_rule_flops(sizes, T, keep_writes=keep_writes)


def hebbian_rule_flops(sizes: ModelConfig, T: int, *, keep_writes: bool = True) -> int:
    """The Hebbian rule alone, of one row of T tokens, in chunks of C, the last padded to C.

    A value head and chunk: 2 C^2 K (q k^T), 2 C K V (a read of the state), 2 C^2 V (reads inside
    the chunk), 2 K C V (the new state; not of the last chunk where keep_writes is False).
    """
    K, V, C = sizes.key_dim, sizes.value_dim, min(CHUNK_SIZE, T)
    chunk = product_flops(C, K, C) + product_flops(C, K, V) + product_flops(C, C, V)
    num_updates = _num_chunks(T) if keep_writes else max(0, _num_chunks(T) - 1)
    return sizes.value_heads * (_num_chunks(T) * chunk + num_updates * product_flops(K, C, V))


def delta_rule_flops(sizes: ModelConfig, T: int, *, keep_writes: bool = True) -> int:
    """The delta rule alone: as the Hebbian, and the correction.

    That is 2 C^2 K (k k^T), C (C - 1) (V + K) (the solve), 2 C K V (a second read of the state).
    """
    K, V, C = sizes.key_dim, sizes.value_dim, min(CHUNK_SIZE, T)
    correction = product_flops(C, K, C) + C * (C - 1) * (V + K) + product_flops(C, K, V)
    corrected = sizes.value_heads * _num_chunks(T) * correction
    return corrected + hebbian_rule_flops(sizes, T, keep_writes=keep_writes)


def ridge_flops(sizes: ModelConfig, T: int) -> int:
    """`ridge_fit` alone: products of T tokens. The K x K system is left out: it is under K / T."""
    K, V = sizes.key_dim, sizes.value_dim
    products = product_flops(K, T, K) + product_flops(T, K, V) + product_flops(K, T, V)
    return sizes.value_heads * products


def _num_chunks(T: int) -> int:
    return -(-T // CHUNK_SIZE)
