"""A block: pre-norm mixer and SwiGLU, each added to the residual stream."""

from __future__ import annotations

from torch import Tensor, nn

from slowwave.layers.attention import Attention
from slowwave.layers.linear import Linear, RMSNorm
from slowwave.layers.recurrent import RecurrentLayer
from slowwave.ops.attention import Rotation
from slowwave.ops.swiglu import swiglu
from slowwave.state import AttentionState, Band, DeltaState, LayerState


class SwiGLU(nn.Module):
    """Gated feed-forward layer (arXiv 2002.05202)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = Linear(width, hidden, hidden)
        self.out = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        return self.out(swiglu(self.up(x)))


class Block(nn.Module):
    """x + mixer(norm(x)), then x + feed_forward(norm(x)); the residual stream keeps x's dtype."""

    def __init__(self, width: int, mixer: Attention | RecurrentLayer, mlp_hidden: int) -> None:
        super().__init__()
        self.mixer_norm = RMSNorm(width)
        self.mixer = mixer
        self.mlp_norm = RMSNorm(width)
        self.mlp = SwiGLU(width, mlp_hidden)

    def weights(self) -> list[Tensor]:
        """What `native` reads a token with, in its order."""
        mlp = [self.mlp_norm.weight, self.mlp.up.narrow_weight(), self.mlp.out.narrow_weight()]
        return [self.mixer_norm.weight, *self.mixer.weights(), *mlp]

    def forward(
        self,
        x: Tensor,
        state: LayerState,
        *,
        rotary: Rotation,
        mask: Tensor | None,
        key_mask: Tensor | None,
        keep_state: bool,
        band: Band | None = None,
    ) -> tuple[Tensor, LayerState]:
        """x (B, T, D) -> (out (B, T, D), state); see the mixers for the rest."""
        normed = self.mixer_norm(x)
        if isinstance(self.mixer, Attention):
            assert isinstance(state, AttentionState)
            mixed, state = self.mixer(
                normed, state, rotary=rotary, key_mask=key_mask, keep_state=keep_state, band=band
            )
        else:
            assert isinstance(state, DeltaState)
            mixed, state = self.mixer(normed, state, mask=mask, keep_state=keep_state)
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x)), state

    def write(self, x: Tensor, state: LayerState, *, mask: Tensor | None) -> LayerState:
        """As `forward` before an eviction, when nobody reads what the block puts out."""
        if isinstance(self.mixer, Attention):
            return state
        assert isinstance(state, DeltaState)
        return self.mixer.write(self.mixer_norm(x), state, mask=mask)
