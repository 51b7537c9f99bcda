"""Gated DeltaNet: the recurrent layer that writes what a key should read but does not yet.

Source: arXiv 2412.06464 as flash-linear-attention builds it: short convolutions on q, k and v,
l2-normalised keys, the gated delta rule.
"""

from __future__ import annotations

from torch import Tensor

from slowwave.layers.recurrent import RecurrentLayer
from slowwave.ops.delta_mix import delta_mix, delta_write
from slowwave.state import DeltaState


class GatedDeltaNet(RecurrentLayer):
    """The delta rule behind a short convolution; the only layer with a compiled way."""

    def weights(self) -> list[Tensor]:
        """See `RecurrentLayer.weights`."""
        projections = [layer.narrow_weight() for layer in (self.qkv, self.gates, self.out_gate)]
        learned = [self.conv, self.A_log, self.dt_bias, self.out_norm.weight]
        return [*projections, *learned, self.out.narrow_weight()]

    def forward(
        self, x: Tensor, state: DeltaState, *, mask: Tensor | None, keep_state: bool
    ) -> tuple[Tensor, DeltaState]:
        """See `RecurrentLayer.forward`."""
        mixed, fast_weights, tail = delta_mix(
            self.qkv(x),
            self.gates(x),
            self.out_gate(x),
            state.conv_tail,
            state.fast_weights,
            self.mix_weights,
            mask=mask,
            keep_writes=keep_state,
        )
        return self.out(mixed), DeltaState(fast_weights, tail) if keep_state else state

    def write(self, x: Tensor, state: DeltaState, *, mask: Tensor | None) -> DeltaState:
        """See `RecurrentLayer.write`."""
        skipped, weights = self.sections[0], self.mix_weights
        fast_weights = delta_write(
            self.keys_and_values(x),
            self.gates(x),
            state.conv_tail[..., skipped:],
            state.fast_weights,
            weights._replace(kernel=weights.kernel[skipped:]),
            mask=mask,
        )
        return DeltaState(fast_weights, state.conv_tail)
