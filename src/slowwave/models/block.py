"""A block: pre-norm mixer and SwiGLU, each added to the residual stream."""

from __future__ import annotations

from torch import Tensor, nn

from slowwave.models.linear import Linear, RMSNorm
from slowwave.models.mixers.mixer import Context, Mixer
from slowwave.ops.norm import swiglu
from slowwave.state import LayerState


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

    def __init__(self, width: int, mixer: Mixer, mlp_hidden: int) -> None:
        super().__init__()
        self.mixer_norm = RMSNorm(width)
        self.mixer = mixer
        self.mlp_norm = RMSNorm(width)
        self.mlp = SwiGLU(width, mlp_hidden)

    def weights(self) -> list[Tensor]:
        """What `native` reads a token with, in its order."""
        mlp = [self.mlp_norm.weight, self.mlp.up.narrow_weight(), self.mlp.out.narrow_weight()]
        return [self.mixer_norm.weight, *self.mixer.weights(), *mlp]

    def forward(self, x: Tensor, state: LayerState, context: Context) -> tuple[Tensor, LayerState]:
        """x (B, T, D) -> (out (B, T, D), state)."""
        mixed, state = self.mixer(self.mixer_norm(x), state, context)
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x)), state

    def write(self, x: Tensor, state: LayerState, context: Context) -> LayerState:
        """As `forward` before an eviction, when the output is not read."""
        return self.mixer.write(self.mixer_norm(x), state, context)
