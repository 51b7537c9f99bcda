"""What a model holds between two calls: pure immutable data, one entry a layer.

Axis letters, the legend of the whole package: B batch, T tokens in this call, W tokens in the
window, L window length, D model width, H query/key heads, G value heads, K key size, V value
size, C conv channels, N sleep passes.

No function writes into a tensor it was given. Cutting a state loose (`fork`) therefore costs
nothing, and gradients flow through memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, slots=True)
class AttentionState:
    """Short-term memory of one attention layer; cleared by sleep.

    keys, values: (B, W, Hkv, Dh), keys already rotated to their position in the window.
    """

    keys: Tensor
    values: Tensor

    @property
    def narrow_dtype(self) -> torch.dtype:
        """The compute dtype of the model that made it."""
        return self.keys.dtype

    def map(self, function: Callable[[Tensor], Tensor]) -> AttentionState:
        """The state with `function` applied to every tensor."""
        return AttentionState(function(self.keys), function(self.values))

    def evict(self) -> AttentionState:
        """The cache after a sleep: empty, so that positions restart."""
        # Cloned: an empty view would keep the whole window's storage alive.
        return self.map(lambda tensor: tensor[:, :0].clone())

    @property
    def nbytes(self) -> int:
        """Bytes held in keys and values."""
        return self.keys.nbytes + self.values.nbytes


@dataclasses.dataclass(frozen=True, slots=True)
class DeltaState:
    """Mid-term memory of one recurrent layer.

    fast_weights: (B, G, K, V), float32 (float64 when checking): all that outlives a sleep.
    conv_tail: (B, w-1, C), the last inputs of the convolution; zero at a window's start.
    """

    fast_weights: Tensor
    conv_tail: Tensor

    @property
    def narrow_dtype(self) -> torch.dtype:
        """The compute dtype of the model that made it."""
        return self.conv_tail.dtype

    def map(self, function: Callable[[Tensor], Tensor]) -> DeltaState:
        """The state with `function` applied to every tensor."""
        return DeltaState(function(self.fast_weights), function(self.conv_tail))

    def evict(self) -> DeltaState:
        """The state after a sleep: nothing but the fast weights crosses the boundary."""
        return DeltaState(self.fast_weights, torch.zeros_like(self.conv_tail))

    @property
    def nbytes(self) -> int:
        """Bytes held in the fast weights and the convolution's tail."""
        return self.fast_weights.nbytes + self.conv_tail.nbytes


LayerState = AttentionState | DeltaState


@dataclasses.dataclass(frozen=True, slots=True)
class MemoryState:
    """All that a stream has left behind, for B streams side by side.

    layers: one state a layer, in the order of the model.
    window_tokens: (B, W) int64, read since the last sleep.
    window_mask: (B, W) bool, False marks padding, which no pass sees; None when nothing is padded.
    window_hidden: (B, W, D), what the looped blocks put out for the window; pass 2 reads this.
    tokens_seen: tokens read in all, padding included.
    num_sleeps: windows consolidated and evicted so far.
    """

    layers: tuple[LayerState, ...]
    window_tokens: Tensor
    window_mask: Tensor | None
    window_hidden: Tensor
    tokens_seen: int = 0
    num_sleeps: int = 0

    @property
    def batch_size(self) -> int:
        """B, the number of streams."""
        return self.window_tokens.shape[0]

    @property
    def window_fill(self) -> int:
        """W, the number of tokens read since the last sleep."""
        return self.window_tokens.shape[1]

    @property
    def fast_weights(self) -> tuple[Tensor, ...]:
        """The fast weights of every recurrent layer, (B, G, K, V) each."""
        return tuple(s.fast_weights for s in self.layers if isinstance(s, DeltaState))

    @property
    def cache_nbytes(self) -> int:
        """Bytes of short-term memory: keys, values, and the window's tokens and hidden states."""
        attention = sum(s.nbytes for s in self.layers if isinstance(s, AttentionState))
        mask = 0 if self.window_mask is None else self.window_mask.nbytes
        return attention + self.window_tokens.nbytes + mask + self.window_hidden.nbytes

    @property
    def nbytes(self) -> int:
        """Bytes of the whole state; room to grow comes on top, at most as much as the window."""
        delta = sum(s.nbytes for s in self.layers if isinstance(s, DeltaState))
        return self.cache_nbytes + delta

    def map(self, function: Callable[[Tensor], Tensor]) -> MemoryState:
        """The state with `function` applied to every tensor."""
        return dataclasses.replace(
            self,
            layers=tuple(layer.map(function) for layer in self.layers),
            window_tokens=function(self.window_tokens),
            window_mask=None if self.window_mask is None else function(self.window_mask),
            window_hidden=function(self.window_hidden),
        )

    def evict(self) -> MemoryState:
        """Drops the window: keys, values, tokens, hidden states. The fast weights stay."""
        return dataclasses.replace(
            self,
            layers=tuple(layer.evict() for layer in self.layers),
            window_tokens=self.window_tokens[:, :0].clone(),
            window_mask=None,
            window_hidden=self.window_hidden[:, :0].clone(),
        )

    def detach(self) -> MemoryState:
        """The same state, cut from the graph that made it."""
        return self.map(lambda tensor: tensor.detach())

    def repeat(self, copies: int) -> MemoryState:
        """Each stream `copies` times in a row, (B * copies) streams, for questions asked apart."""
        if copies < 1:
            raise ValueError(f"copies must be at least 1, got {copies}; ask for one copy or more")
        return self.map(lambda tensor: tensor.repeat_interleave(copies, dim=0))
