"""A block: mixer and gated feed-forward, each normed and added to the residual stream."""

from __future__ import annotations

from torch import Tensor, nn

from slowwave.delta import LowRank
from slowwave.models.config import Activation, LayerType, ModelConfig
from slowwave.models.linear import Linear, RMSNorm
from slowwave.models.mixers.mixer import Context, find_mixer
from slowwave.ops.norm import gelu_gate, swiglu
from slowwave.state import LayerState


class GatedMLP(nn.Module):
    """Gated feed-forward layer (arXiv 2002.05202)."""

    def __init__(self, width: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.up = Linear(width, hidden, hidden)
        self.out = Linear(hidden, width)
        self.gate = swiglu if activation == "silu" else gelu_gate

    def forward(self, x: Tensor, delta: LowRank | None = None) -> Tensor:
        """x (B, T, D) -> (B, T, D). delta: what the streams add to the last matrix."""
        inner = self.gate(self.up(x))
        product = self.out(inner)
        return product if delta is None else delta.add(product, inner)


class Block(nn.Module):
    """x + mixer(norm(x)), then x + feed_forward(norm(x)); the residual stream keeps x's dtype.

    Norms may stand after mixer and feed-forward instead, or as well (`Traits.attn_norms`).
    """

    def __init__(self, sizes: ModelConfig, kind: LayerType) -> None:
        super().__init__()
        mixer = find_mixer(kind)
        norms = "before" if mixer.has_midterm else sizes.traits.attn_norms
        self.mixer_norm = _make_norm(sizes, norms != "after")
        self.mixer = mixer(sizes)
        self.mixed_norm = _make_norm(sizes, norms != "before")
        self.mlp_norm = _make_norm(sizes, norms != "after")
        self.mlp = GatedMLP(sizes.width, sizes.mlp_hidden, sizes.traits.activation)
        self.mlp_out_norm = _make_norm(sizes, norms != "before")

    def weights(self) -> list[Tensor | None]:
        """What the compiled token reads with, in its order; None for what the model lacks."""
        mixer = [_scale(self.mixer_norm), *self.mixer.weights(), _scale(self.mixed_norm)]
        mlp = [*self.mlp.up.parts(), *self.mlp.out.parts()]
        return [*mixer, _scale(self.mlp_norm), *mlp, _scale(self.mlp_out_norm)]

    def forward(
        self, x: Tensor, state: LayerState, context: Context, delta: LowRank | None = None
    ) -> tuple[Tensor, LayerState]:
        """x (B, T, D) -> (out (B, T, D), state). delta: see `GatedMLP`."""
        if context.watch is not None and self.mixer.keeps_entries:
            context.watch.stream_norms.append(x.norm(dim=-1).mean(-1))
        mixed, state = self.mixer(self.mixer_norm(x), state, context)
        x = x + self.mixed_norm(mixed)
        return x + self.mlp_out_norm(self.mlp(self.mlp_norm(x), delta)), state

    def write(self, x: Tensor, state: LayerState, context: Context) -> LayerState:
        """As `forward` before an eviction, when the output is not read."""
        return self.mixer.write(self.mixer_norm(x), state, context)


def _scale(norm: RMSNorm | nn.Identity) -> Tensor | None:
    return norm.weight if isinstance(norm, RMSNorm) else None


def _make_norm(sizes: ModelConfig, stands: bool) -> RMSNorm | nn.Identity:
    return RMSNorm(sizes.width, eps=sizes.traits.norm_eps) if stands else nn.Identity()
