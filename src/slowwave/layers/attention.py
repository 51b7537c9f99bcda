"""Softmax attention over what is cached: grouped queries, rotary positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slowwave.layers.linear import Linear
from slowwave.ops.append import append, concatenate
from slowwave.ops.attention import Rotation, rotate, windowed_attention
from slowwave.state import AttentionState, Band


class Attention(nn.Module):
    """Causal self-attention whose cache is a state that goes in and comes out."""

    def __init__(self, width: int, *, num_heads: int, num_kv_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, num_kv_heads, head_dim
        queries, keys = num_heads * head_dim, num_kv_heads * head_dim
        self.qkv = Linear(width, queries, keys, keys)
        self.out = Linear(num_heads * head_dim, width)

    def weights(self) -> list[Tensor]:
        """What `native` reads a token with, in its order."""
        return [self.qkv.narrow_weight(), self.out.narrow_weight()]

    def initial_state(self, batch_size: int) -> AttentionState:
        """The empty cache of `batch_size` streams."""
        weight = self.qkv.weight
        dtype = self.qkv.compute_dtype or weight.dtype
        empty = torch.zeros(
            batch_size, 0, self.num_kv_heads, self.head_dim, device=weight.device, dtype=dtype
        )
        return AttentionState(empty, empty)

    def forward(
        self,
        x: Tensor,
        state: AttentionState,
        *,
        rotary: Rotation,
        key_mask: Tensor | None,
        keep_state: bool,
        band: Band | None = None,
    ) -> tuple[Tensor, AttentionState]:
        """Attends from T new tokens to the W that are cached and to themselves.

        x: (B, T, D). rotary: of their positions. key_mask: (B, W + T) bool or None. band: how far
        back they see, None for all that is cached.
        keep_state: False returns the state it was given. Returns (out (B, T, D), state).
        """
        q, keys, values = (
            fused.unflatten(-1, (-1, self.head_dim))
            for fused in self.qkv(x).split(self.qkv.sizes, dim=-1)
        )
        q, keys = rotate(q, rotary), rotate(keys, rotary)
        past = _share(state, x.shape[0] // state.keys.shape[0])
        grow = append if keep_state else concatenate  # a question must not take the window's room
        keys, values = grow(past.keys, keys), grow(past.values, values)
        out = self.out(windowed_attention(q, keys, values, key_mask, band).flatten(2))
        return out, AttentionState(keys, values) if keep_state else state


def _share(state: AttentionState, forks: int) -> AttentionState:
    """The cache of each row, `forks` times in a row."""
    if forks == 1:
        return state
    return state.map(lambda tensor: tensor.repeat_interleave(forks, dim=0))
