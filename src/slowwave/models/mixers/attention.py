"""Softmax attention over what is cached: grouped queries, rotary positions."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from slowwave.models.config import ModelConfig
from slowwave.models.linear import Linear
from slowwave.models.mixers.mixer import Context, Mixer, product_flops
from slowwave.ops.append import append, concatenate
from slowwave.ops.attention import rotate, windowed_attention
from slowwave.state import KeyValues, LayerState


class Attention(Mixer):
    """Causal self-attention whose cache is a state that goes in and comes out."""

    has_midterm: ClassVar[bool] = False

    @classmethod
    def build(cls, sizes: ModelConfig) -> Attention:
        """See `Mixer.build`."""
        return cls(
            sizes.width,
            num_heads=sizes.attn_heads,
            num_kv_heads=sizes.kv_heads,
            head_dim=sizes.head_dim,
        )

    def __init__(self, width: int, *, num_heads: int, num_kv_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, num_kv_heads, head_dim
        queries, keys = num_heads * head_dim, num_kv_heads * head_dim
        self.qkv = Linear(width, queries, keys, keys)
        self.out = Linear(num_heads * head_dim, width)

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
        q, keys, values = (
            fused.unflatten(-1, (-1, self.head_dim))
            for fused in self.qkv(x).split(self.qkv.sizes, dim=-1)
        )
        if context.rotary is not None:
            q, keys = rotate(q, context.rotary), rotate(keys, context.rotary)
        forks = x.shape[0] // state.keys.shape[0]
        # A question must not take the window's room.
        grow = append if context.keep_state else concatenate
        keys = grow(_share(state.keys, forks), keys)
        values = grow(_share(state.values, forks), values)
        read = windowed_attention(q, keys, values, context.key_mask, context.band)
        return self.out(read.flatten(2)), KeyValues(keys, values) if context.keep_state else state

    def write(self, x: Tensor, state: LayerState, context: Context) -> LayerState:
        """See `Mixer.write`: nothing of the window outlives it."""
        return state

    def weights(self) -> list[Tensor]:
        """See `Mixer.weights`."""
        return [self.qkv.narrow_weight(), self.out.narrow_weight()]

    @classmethod
    def forward_flops(cls, sizes: ModelConfig, T: int, *, cached: int, context: Context) -> int:
        """See `Mixer.forward_flops`: projections; scores and their use, the full rectangle."""
        out = product_flops(T, sizes.attn_heads * sizes.head_dim, sizes.width)
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


def _share(cached: Tensor, forks: int) -> Tensor:
    """The cache of each row, `forks` times in a row."""
    return cached if forks == 1 else cached.repeat_interleave(forks, dim=0)
