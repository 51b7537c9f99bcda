"""What all recurrent layers are made of: projections, gates, decays, a convolution, a state.

Source: Gated DeltaNet (arXiv 2412.06464) as flash-linear-attention builds it: one decay and one
write strength a value head, a gated norm on the way out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from slowwave.models.linear import Linear, RMSNorm
from slowwave.models.mixers.mixer import Context, Mixer
from slowwave.ops.gated_mix import MixWeights, conv_mix, conv_write, delta_mix, delta_write
from slowwave.ops.gated_rules import gated_hebbian_rule
from slowwave.ops.linear import linear
from slowwave.ops.norm import wide_dtype
from slowwave.state import FastWeights, LayerState

OUT_NORM_EPS = 1e-5  # fla's, other norms have 1e-6


class RecurrentLayer(Mixer):
    """Reads and writes a (K, V) matrix a value head; `mix` and `write_only` say how."""

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        num_value_heads: int,
        key_dim: int,
        value_dim: int,
        conv_width: int,
        max_beta: float,
    ) -> None:
        super().__init__()
        self.num_heads, self.num_value_heads = num_heads, num_value_heads
        self.key_dim, self.value_dim = key_dim, value_dim
        self.conv_width, self.max_beta = conv_width, max_beta
        keys, values = num_heads * key_dim, num_value_heads * value_dim
        self.sections = [keys, keys, values]
        self.qkv = Linear(width, *self.sections)
        self.conv = nn.Parameter(torch.empty(self.conv_channels, conv_width))
        self.gates = Linear(width, num_value_heads, num_value_heads)
        self.A_log = nn.Parameter(torch.empty(num_value_heads))
        self.dt_bias = nn.Parameter(torch.empty(num_value_heads))
        self.out_gate = Linear(width, values)
        self.out_norm = RMSNorm(value_dim, eps=OUT_NORM_EPS)
        self.out = Linear(values, width)

    @property
    def conv_channels(self) -> int:
        """Channels C of the convolution: queries, keys and values."""
        return sum(self.sections)

    def reset_recurrence(self, generator: torch.Generator, initial_decay: float) -> None:
        """Draws decays and convolution as fla does, whose initial_decay is 16.

        A ~ U(0, initial_decay) and dt log-uniform in [1e-3, 0.1] spread the memory's half-life over
        heads; the convolution is uniform within 1 / sqrt(width), as `nn.Conv1d` draws it.
        """
        with torch.no_grad():
            self.A_log.uniform_(1e-4, initial_decay, generator=generator).log_()
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
        return self.out(mixed), after if context.keep_state else state

    def write(self, x: Tensor, state: LayerState, context: Context) -> LayerState:
        """See `Mixer.write`. The convolution's tail stays as it was given."""
        assert isinstance(state, FastWeights)
        return FastWeights(self.write_only(x, state, context.mask), state.conv_tail)

    def mix(self, x: Tensor, state: FastWeights, context: Context) -> tuple[Tensor, FastWeights]:
        """x (B, T, D) -> (what was read (B, T, G V), state)."""
        raise NotImplementedError

    def write_only(self, x: Tensor, state: FastWeights, mask: Tensor | None) -> Tensor:
        """The fast weights that `mix` leaves, (B, G, K, V), of tokens without a reader."""
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


class GatedDeltaNet(ConvolvedLayer):
    """The delta rule: it writes what a key should read but does not yet (arXiv 2412.06464).

    The only recurrent layer that reads a token in one compiled call.
    """

    mix_op = staticmethod(delta_mix)
    write_op = staticmethod(delta_write)

    def weights(self) -> list[Tensor]:
        """See `Mixer.weights`."""
        projections = [layer.narrow_weight() for layer in (self.qkv, self.gates, self.out_gate)]
        learned = [self.conv, self.A_log, self.dt_bias, self.out_norm.weight]
        return [*projections, *learned, self.out.narrow_weight()]


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
