"""Softmax attention over what is cached: grouped queries, rotary positions."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from slowwave.entries import CompactKeyValues
from slowwave.models.config import ModelConfig
from slowwave.models.linear import Linear, RMSNorm
from slowwave.models.mixers.mixer import Context, Mixer, product_flops
from slowwave.ops import native
from slowwave.ops.append import append, concatenate
from slowwave.ops.attention import Rotation, rotate, windowed_attention
from slowwave.ops.cached_attention import cached_attention, cached_attention_and_sum
from slowwave.ops.compact_attention import compact_attention, watched_attention
from slowwave.state import Band, KeyValues, LayerState


class Attention(Mixer):
    """Causal self-attention whose cache is a state that goes in and comes out."""

    has_midterm: ClassVar[bool] = False
    keeps_entries: ClassVar[bool] = True

    def __init__(self, sizes: ModelConfig) -> None:
        super().__init__(sizes)
        traits = sizes.traits
        self.num_heads, self.num_kv_heads = sizes.attn_heads, sizes.kv_heads
        self.head_dim = sizes.head_dim
        self.rotary_dim, self.scale = sizes.rotary_dim, traits.attn_scale
        queries, keys = sizes.attn_heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
        self.qkv = Linear(sizes.width, queries, keys, keys, bias=traits.qkv_bias)
        self.out = Linear(queries, sizes.width)
        self.gate = Linear(sizes.width, queries) if traits.attn_gate else None
        self.norms_heads = traits.qk_norm == "head"
        self.q_norm = self.k_norm = None
        if traits.qk_norm != "none":
            normed = (sizes.head_dim, sizes.head_dim) if self.norms_heads else (queries, keys)
            self.q_norm, self.k_norm = (RMSNorm(size, eps=traits.norm_eps) for size in normed)

    def initial_state(self, batch_size: int) -> KeyValues:
        """The empty cache of `batch_size` streams."""
        weight = self.qkv.weight
        dtype = self.qkv.compute_dtype or weight.dtype
        empty = torch.zeros(
            batch_size, 0, self.num_kv_heads, self.head_dim, device=weight.device, dtype=dtype
        )
        return KeyValues(empty, empty)

    def forward(self, x: Tensor, state: LayerState, context: Context) -> tuple[Tensor, LayerState]:
        """See `Mixer.forward`: tokens attend to the W that are cached, and to themselves."""
        assert isinstance(state, KeyValues)
        q, keys, values = self.qkv(x).split(self.qkv.sizes, dim=-1)
        q, keys = self._prepare(q, self.q_norm, context), self._prepare(keys, self.k_norm, context)
        values = values.unflatten(-1, (-1, self.head_dim))
        forks = x.shape[0] // state.keys.shape[0]
        # A question must not take the window's room.
        grow = append if context.keep_state else concatenate
        keys = grow(_share(state.keys, forks), keys)
        values = grow(_share(state.values, forks), values)
        read = self._attend(q, keys, values, state.compact, forks, context)
        read = read.flatten(2)
        if self.gate is not None:
            read = read * torch.sigmoid(self.gate(x))
        after = KeyValues(keys, values, state.compact) if context.keep_state else state
        return self.out(read), after

    def _attend(
        self,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        compact: CompactKeyValues | None,
        forks: int,
        context: Context,
    ) -> Tensor:
        """What tokens read of the window, and of entries if there are any."""
        watch, mask = context.watch if self.keeps_entries else None, context.key_mask
        is_empty = compact is None or compact.is_empty
        if is_empty and watch is None:
            band = self.find_band(context)
            return windowed_attention(q, keys, values, mask, band, self.scale)
        if compact is None:
            compact = CompactKeyValues.of_none(keys)
        elif forks > 1:
            compact = compact.map(lambda tensor: _share(tensor, forks))
        if watch is None and mask is None and native.can_read(q):
            return cached_attention(q, keys, values, self.score_scale, entries=compact)
        if watch is None:
            return compact_attention(q, keys, values, compact.heads(), mask, self.scale)
        if mask is None and native.can_read(q):
            scale = self.score_scale
            read, log_sums = cached_attention_and_sum(q, keys, values, scale, compact)
        else:
            read, log_sums = watched_attention(q, keys, values, compact.heads(), mask, self.scale)
        watch.queries.append(q)
        watch.log_sums.append(log_sums)
        return read

    def find_rotary(self, context: Context) -> Rotation | None:
        """Angles of the tokens' positions."""
        return context.rotary

    def find_band(self, context: Context) -> Band | None:
        """How far the tokens see."""
        return context.band

    def _prepare(self, heads: Tensor, norm: RMSNorm | None, context: Context) -> Tensor:
        """Queries or keys as projected (B, T, H Dh) -> (B, T, H, Dh), normed and turned."""
        dtype = heads.dtype
        if norm is not None and not self.norms_heads:
            heads = norm(heads).to(dtype)
        heads = heads.unflatten(-1, (-1, self.head_dim))
        if norm is not None and self.norms_heads:
            heads = norm(heads).to(dtype)
        rotary = self.find_rotary(context)
        if rotary is None:
            return heads
        if self.rotary_dim == self.head_dim:
            return rotate(heads, rotary)
        turned, plain = heads.split([self.rotary_dim, self.head_dim - self.rotary_dim], dim=-1)
        return torch.cat([rotate(turned, rotary), plain], dim=-1)

    @property
    def score_scale(self) -> float:
        """What the products of queries and keys are multiplied with."""
        return self.head_dim**-0.5 if self.scale is None else self.scale

    def value_metrics(self) -> Tensor:
        """(Hkv, Dh, Dh): W^T W of the matrix that values go through, a mean over a group's heads.

        It measures what a value does to the residual stream; a gate is left out.
        """
        out = self.out.wide_weight().unflatten(1, (self.num_kv_heads, -1, self.head_dim))
        return torch.einsum("dkgx,dkgy->kxy", out, out) * (self.num_kv_heads / self.num_heads)

    def write(self, x: Tensor, state: LayerState, context: Context) -> LayerState:
        """See `Mixer.write`: nothing of the window outlives it."""
        return state

    def weights(self) -> list[Tensor | None]:
        """See `Mixer.weights`."""
        norms = [None if norm is None else norm.weight for norm in (self.q_norm, self.k_norm)]
        gate = [None, None, None] if self.gate is None else self.gate.parts()
        return [*self.qkv.parts(), *norms, *gate, *self.out.parts()]

    @classmethod
    def forward_flops(cls, sizes: ModelConfig, T: int, *, cached: int, context: Context) -> int:
        """See `Mixer.forward_flops`: projections; scores and their use, the full rectangle."""
        out = product_flops(T, sizes.attn_heads * sizes.head_dim, sizes.width)
        if sizes.traits.attn_gate:
            out += product_flops(T, sizes.width, sizes.attn_heads * sizes.head_dim)
        scores = 2 * sizes.attn_heads * product_flops(T, sizes.head_dim, cached + T)
        return cls.state_flops(sizes, T, context=context) + out + scores

    @classmethod
    def write_flops(cls, sizes: ModelConfig, T: int, *, context: Context) -> int:
        """See `Mixer.write_flops`."""
        return 0

    @classmethod
    def state_flops(cls, sizes: ModelConfig, T: int, *, context: Context) -> int:
        """See `Mixer.state_flops`: the projections to queries, keys and values."""
        heads = sizes.attn_heads + 2 * sizes.kv_heads
        return product_flops(T, sizes.width, heads * sizes.head_dim)


class LocalAttention(Attention):
    """Attention over the nearest `Traits.local_window` tokens, with rotary positions of its own.

    It keeps no entries of what it has lost, which was out of its sight anyway.
    """

    keeps_entries: ClassVar[bool] = False

    def __init__(self, sizes: ModelConfig) -> None:
        super().__init__(sizes)
        self.reach = sizes.traits.local_window

    def find_rotary(self, context: Context) -> Rotation | None:
        """See `Attention.find_rotary`."""
        return context.local_rotary

    def find_band(self, context: Context) -> Band | None:
        """See `Attention.find_band`; the first tokens are seen as long as they are near."""
        reach = self.reach if context.band is None else min(self.reach, context.band.reach)
        return Band(reach, 0)


def _share(cached: Tensor, forks: int) -> Tensor:
    """The cache of each row, `forks` times in a row."""
    return cached if forks == 1 else cached.repeat_interleave(forks, dim=0)
