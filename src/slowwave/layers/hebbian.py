"""The gated Hebbian layer: linear attention with a decay, the rule of Mamba-2.

Everything around the rule is as in `GatedDeltaNet`, so that a model with this layer in its place
differs by the delta correction and by nothing else. Mamba-2 itself (arXiv 2405.21060) also leaves q
and k as long as they are, shares them between many heads, adds a multiple of v to what is read and
norms all heads together: none of it concerns the rule. It ties the write strength to the decay
(both come from its step dt); equation 3 of arXiv 2605.26099 leaves both free, and so do we.
"""

from __future__ import annotations

from torch import Tensor

from slowwave.layers.recurrent import RecurrentLayer
from slowwave.ops.gated_mix import conv_mix, conv_write
from slowwave.ops.hebbian_rule import gated_hebbian_rule
from slowwave.state import DeltaState


class GatedHebbian(RecurrentLayer):
    """The Hebbian rule behind a short convolution."""

    def forward(
        self, x: Tensor, state: DeltaState, *, mask: Tensor | None, keep_state: bool
    ) -> tuple[Tensor, DeltaState]:
        """See `RecurrentLayer.forward`."""
        mixed, fast_weights, tail = conv_mix(
            gated_hebbian_rule,
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
        fast_weights = conv_write(
            gated_hebbian_rule,
            self.keys_and_values(x),
            self.gates(x),
            state.conv_tail[..., skipped:],
            state.fast_weights,
            weights._replace(kernel=weights.kernel[skipped:]),
            mask=mask,
        )
        return DeltaState(fast_weights, state.conv_tail)
