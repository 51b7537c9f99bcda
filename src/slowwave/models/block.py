"""A block: mixer, perhaps a prime MLP, and feed-forward, each normed and added to the stream."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from slowwave.delta import LowRank
from slowwave.models.config import Activation, LayerType, ModelConfig
from slowwave.models.linear import Linear, RMSNorm
from slowwave.models.mixers.mixer import Context, find_mixer
from slowwave.ops.norm import gelu_gate, swiglu, wide_dtype
from slowwave.state import LayerState, PrimeDelta


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


class PrimeMLP(GatedMLP):
    """Gated feed-forward layer whose weights every stream changes for itself (arXiv 2512.23675).

    Its own weights are where streams begin. All is float32 (float64 when checking).
    """

    def initial_state(self, batch_size: int) -> PrimeDelta:
        """No change, for `batch_size` streams."""
        weights = (self.up.wide_weight(), self.out.wide_weight())
        zeros = (
            torch.zeros(batch_size, *each.shape, dtype=wide_dtype(each.dtype), device=each.device)
            for each in weights
        )
        return PrimeDelta(*zeros)

    def adapted(self, x: Tensor, delta: PrimeDelta) -> Tensor:
        """x (B F, T, D), F forks of each stream, which share its weights -> the same shape."""
        up, out = self.up.wide_weight() + delta.up, self.out.wide_weight() + delta.out
        rows, T, _ = x.shape
        streams = x.to(up.dtype).unflatten(0, (len(up), -1)).flatten(1, 2)
        made = self.gate(streams @ up.mT) @ out.mT
        return made.unflatten(1, (-1, T)).reshape(rows, T, -1)


class Block(nn.Module):
    """x + mixer(norm(x)), then x + feed_forward(norm(x)); the residual stream keeps x's dtype.

    Norms may stand after mixer and feed-forward instead, or as well (`Traits.attn_norms`). A prime
    MLP, if there is one, stands between the two and is normed as the feed-forward layer is.
    """

    def __init__(self, sizes: ModelConfig, kind: LayerType, *, primed: bool = False) -> None:
        super().__init__()
        mixer = find_mixer(kind)
        norms = "before" if mixer.has_midterm else sizes.traits.attn_norms
        self.mixer_norm = _make_norm(sizes, norms != "after")
        self.mixer = mixer(sizes)
        self.mixed_norm = _make_norm(sizes, norms != "before")
        self.mlp_norm = _make_norm(sizes, norms != "after")
        self.mlp = GatedMLP(sizes.width, sizes.mlp_hidden, sizes.traits.activation)
        self.mlp_out_norm = _make_norm(sizes, norms != "before")
        self.prime = None
        if primed:
            self.prime_norm = _make_norm(sizes, norms != "after")
            self.prime = PrimeMLP(sizes.width, sizes.prime_width, sizes.traits.activation)
            self.prime_out_norm = _make_norm(sizes, norms != "before")

    def initial_state(self, batch_size: int) -> LayerState:
        """The state of `batch_size` streams that have read nothing."""
        prime = None if self.prime is None else self.prime.initial_state(batch_size)
        return dataclasses.replace(self.mixer.initial_state(batch_size), prime=prime)

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
        mixed, after = self.mixer(self.mixer_norm(x), state, context)
        x = x + self.mixed_norm(mixed)
        if self.prime is not None:
            assert state.prime is not None
            x = x + self.prime_out_norm(self.prime.adapted(self.prime_norm(x), state.prime))
            after = dataclasses.replace(after, prime=state.prime)
        return x + self.mlp_out_norm(self.mlp(self.mlp_norm(x), delta)), after

    def write(self, x: Tensor, state: LayerState, context: Context) -> LayerState:
        """As `forward` before an eviction, when the output is not read."""
        after = self.mixer.write(self.mixer_norm(x), state, context)
        return dataclasses.replace(after, prime=state.prime)


def _scale(norm: RMSNorm | nn.Identity) -> Tensor | None:
    return norm.weight if isinstance(norm, RMSNorm) else None


def _make_norm(sizes: ModelConfig, stands: bool) -> RMSNorm | nn.Identity:
    return RMSNorm(sizes.width, eps=sizes.traits.norm_eps) if stands else nn.Identity()
