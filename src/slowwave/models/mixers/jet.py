"""The Jet layer of Jet-Nemotron (arXiv 2508.15884): Gated DeltaNet with one dynamic convolution.

The values go through a convolution whose kernel every token makes for itself; queries and keys go
through none. Gates, decays, l2 norms, delta rule and gated norm are those of `GatedDeltaNet`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slowwave.models.config import ModelConfig
from slowwave.models.linear import Linear
from slowwave.models.mixers.mixer import Context, product_flops
from slowwave.models.mixers.recurrent import RecurrentLayer, delta_rule_flops
from slowwave.ops.convolution import dynamic_conv
from slowwave.ops.gated_mix import mix_heads, write_heads
from slowwave.ops.gated_rules import gated_delta_rule
from slowwave.ops.norm import l2_norm
from slowwave.state import FastWeights

REDUCTION = 8
"""Channels of the convolution over hidden units of its kernel generator, as in Jet-Nemotron."""
GENERATOR_STD = 0.02


class KernelGenerator(nn.Module):
    """What a token adds to the kernel that all tokens have: W2 silu(W1 x)."""

    def __init__(self, width: int, channels: int, conv_width: int) -> None:
        super().__init__()
        hidden = _count_hidden(channels)
        self.conv_width = conv_width
        self.reduce = Linear(width, hidden)
        self.expand = Linear(hidden, channels * conv_width)

    def reset(self, generator: torch.Generator) -> None:
        """W1 is normal with std 0.02 and W2 zero, so that the layer starts with a fixed kernel.

        Zero for both, as Jet-Nemotron's module has it alone, would never get a gradient.
        """
        nn.init.normal_(self.reduce.weight, std=GENERATOR_STD, generator=generator)
        nn.init.zeros_(self.expand.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, C, w) in the compute dtype."""
        return self.expand(F.silu(self.reduce(x))).unflatten(-1, (-1, self.conv_width))


class JetLayer(RecurrentLayer):
    """The delta rule behind a dynamic convolution of the values.

    `conv` is the kernel that all tokens have: the bias of the generator's second matrix.
    """

    def __init__(self, sizes: ModelConfig) -> None:
        super().__init__(sizes)
        self.kernels = KernelGenerator(sizes.width, self.conv_channels, sizes.conv_width)

    def reset_last(self, generator: torch.Generator) -> None:
        """See `Mixer.reset_last`."""
        self.kernels.reset(generator)

    @property
    def conv_channels(self) -> int:
        """Channels C of the convolution: values alone."""
        return self.sections[-1]

    def mix(self, x: Tensor, state: FastWeights, context: Context) -> tuple[Tensor, FastWeights]:
        """See `RecurrentLayer.mix`."""
        keys, _, values = self.sections
        qk, v = self.qkv(x).split([2 * keys, values], dim=-1)
        q, k = self._norm(qk).chunk(2, dim=2)
        v, tail = self._convolve(x, v, state.conv_tail, context.mask)
        mixed, weights = mix_heads(
            gated_delta_rule,
            q,
            k,
            v,
            self.gates(x),
            self.out_gate(x),
            state.weights,
            self.mix_weights,
            mask=context.mask,
            keep_writes=context.keep_state,
        )
        return mixed, FastWeights(weights, tail)

    def write_only(self, x: Tensor, state: FastWeights, mask: Tensor | None) -> Tensor:
        """See `RecurrentLayer.write_only`."""
        k, v = self.pairs(x, state, mask)
        return write_heads(
            gated_delta_rule, k, v, self.gates(x), state.weights, self.mix_weights, mask=mask
        )

    def pairs(self, x: Tensor, state: FastWeights, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `RecurrentLayer.pairs`."""
        k, v = self.keys_and_values(x).split(self.sections[1:], dim=-1)
        v, _ = self._convolve(x, v, state.conv_tail, mask)
        return self._norm(k), v

    @classmethod
    def kernel_flops(cls, sizes: ModelConfig, T: int) -> int:
        """See `RecurrentLayer.kernel_flops`: the two matrices of the generator."""
        channels = sizes.value_heads * sizes.value_dim
        hidden = _count_hidden(channels)
        expand = product_flops(T, hidden, channels * sizes.conv_width)
        return product_flops(T, sizes.width, hidden) + expand

    @classmethod
    def rule_flops(cls, sizes: ModelConfig, T: int, *, keep_writes: bool) -> int:
        """See `RecurrentLayer.rule_flops`."""
        return delta_rule_flops(sizes, T, keep_writes=keep_writes)

    def _norm(self, keys: Tensor) -> Tensor:
        """keys (B, T, heads K) -> (B, T, heads, K), wide: SiLU, then l2-normalised."""
        return l2_norm(F.silu(keys).unflatten(-1, (-1, self.key_dim)))

    def _convolve(
        self, x: Tensor, v: Tensor, tail: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """v (B, T, C) as the rule takes it, and the tail (B, w-1, C) after it."""
        tail = tail.repeat_interleave(x.shape[0] // tail.shape[0], dim=0)
        kernels = self.kernels(x) + self.conv.to(v.dtype)
        mixed, new_tail = dynamic_conv(v, kernels, tail, mask)
        return F.silu(mixed), new_tail


def _count_hidden(channels: int) -> int:
    """Hidden units of the generator of kernels for so many channels."""
    return max(1, channels // REDUCTION)
