"""What all recurrent layers are made of: projections, gates, decays, a convolution, a state.

Source: Gated DeltaNet (arXiv 2412.06464) as flash-linear-attention builds it: one decay and one
write strength a value head, a gated norm on the way out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from slowwave.layers.linear import Linear, RMSNorm
from slowwave.ops.gated_mix import MixWeights
from slowwave.ops.linear import linear
from slowwave.ops.norm import wide_dtype
from slowwave.state import DeltaState

OUT_NORM_EPS = 1e-5  # fla's, other norms have 1e-6


class RecurrentLayer(nn.Module):
    """Reads and writes a (K, V) matrix a value head; `forward` and `write` of its kinds say how."""

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

    def weights(self) -> list[Tensor]:
        """What `native` reads a token with, in its order; only a layer it knows has that."""
        raise NotImplementedError

    def initial_state(self, batch_size: int) -> DeltaState:
        """Zero fast weights and an empty convolution tail for `batch_size` streams."""
        weight = self.qkv.weight
        shape = (batch_size, self.num_value_heads, self.key_dim, self.value_dim)
        fast_weights = torch.zeros(shape, device=weight.device, dtype=wide_dtype(weight.dtype))
        dtype = self.qkv.compute_dtype or weight.dtype
        tail = torch.zeros(
            batch_size, self.conv_width - 1, self.conv_channels, device=weight.device, dtype=dtype
        )
        return DeltaState(fast_weights, tail)

    def forward(
        self, x: Tensor, state: DeltaState, *, mask: Tensor | None, keep_state: bool
    ) -> tuple[Tensor, DeltaState]:
        """Writes T tokens into the fast weights and reads them back.

        x: (B, T, D). mask: (B, T) bool or None, False tokens leave the state untouched.
        keep_state: False returns the state it was given. Returns (out (B, T, D), state).
        """
        raise NotImplementedError

    def write(self, x: Tensor, state: DeltaState, *, mask: Tensor | None) -> DeltaState:
        """As `forward` before an eviction: only what outlives it, the fast weights.

        x: (B, T, D). mask: (B, T) bool or None. The convolution's tail stays as it was given.
        """
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
