"""What a model holds between two calls: pure immutable data, one entry a layer.

Axis letters, the legend of the whole package: B batch, T tokens in this call, W tokens in the
window, L window length, D model width, H query/key heads, G value heads, K key size, V value
size, C conv channels, N sleep passes.

No function writes into a tensor it was given. Cutting a state loose (`fork`) therefore costs
nothing, and gradients flow through memory.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import NamedTuple

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

    def evict(self, carried: int = 0) -> AttentionState:
        """The cache without its window: empty, or what `carried` tokens before it left."""
        # Cloned: a view would keep the whole window's storage alive.
        return self.map(lambda tensor: tensor[:, :carried].clone())

    def slide(self, first: int, newest: int) -> AttentionState:
        """The cache of its `first` and its `newest` tokens alone, in order."""
        return self.map(lambda tensor: keep_ends(tensor, first, newest))

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

    def with_fast_weights(self, other: DeltaState) -> DeltaState:
        """The state with the fast weights of another one."""
        return DeltaState(other.fast_weights, self.conv_tail)

    @property
    def nbytes(self) -> int:
        """Bytes held in the fast weights and the convolution's tail."""
        return self.fast_weights.nbytes + self.conv_tail.nbytes


LayerState = AttentionState | DeltaState


class Band(NamedTuple):
    """How far attention sees: a token itself, `reach` - 1 before it, the first `sinks` cached."""

    reach: int
    sinks: int


@dataclasses.dataclass(frozen=True, slots=True)
class Carried:
    """What attention still sees of slept windows, if eviction slides.

    Its keys and values stand in the layers before those of the window, sinks first.

    count: tokens carried, the same in all rows. band: how far tokens of the window see.
    start: (B,) int64, tokens of the stream before the window, padding aside; there its positions
    go on. mask: (B, count) bool, False is padding; None when nothing is padded.
    """

    count: int
    band: Band
    start: Tensor
    mask: Tensor | None

    def map(self, function: Callable[[Tensor], Tensor]) -> Carried:
        """The same with `function` applied to every tensor."""
        mask = None if self.mask is None else function(self.mask)
        return Carried(self.count, self.band, function(self.start), mask)

    @property
    def nbytes(self) -> int:
        """Bytes beside the keys and values."""
        return self.start.nbytes + (0 if self.mask is None else self.mask.nbytes)


@dataclasses.dataclass(frozen=True, slots=True)
class MemoryState:
    """All that a stream has left behind, for B streams side by side.

    layers: one state a layer, in the order of the model.
    window_tokens: (B, W) int64, read since the last sleep.
    window_mask: (B, W) bool, False marks padding, which no pass sees; None when nothing is padded.
    window_hidden: (B, W, D), what the looped blocks put out for the window; pass 2 reads this.
    tokens_seen: tokens read in all, padding included.
    num_sleeps: windows consolidated and evicted so far.
    carried: what attention sees of earlier windows; None unless eviction slides.
    window_start: one entry a layer, recurrent ones as they were when the window opened, None for
    the rest; empty unless some pass starts there again.
    wake_layers: as `layers`, one entry a wake pass after the first (`sleep.wake_passes`).
    """

    layers: tuple[LayerState, ...]
    window_tokens: Tensor
    window_mask: Tensor | None
    window_hidden: Tensor
    tokens_seen: int = 0
    num_sleeps: int = 0
    carried: Carried | None = None
    window_start: tuple[DeltaState | None, ...] = ()
    wake_layers: tuple[tuple[LayerState, ...], ...] = ()

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
    def num_carried(self) -> int:
        """Tokens of slept windows that attention still sees."""
        return 0 if self.carried is None else self.carried.count

    @property
    def cache_nbytes(self) -> int:
        """Bytes of short-term memory: keys, values, and the window's tokens and hidden states."""
        layers = itertools.chain(self.layers, *self.wake_layers)
        attention = sum(s.nbytes for s in layers if isinstance(s, AttentionState))
        mask = 0 if self.window_mask is None else self.window_mask.nbytes
        carried = 0 if self.carried is None else self.carried.nbytes
        window = self.window_tokens.nbytes + mask + self.window_hidden.nbytes
        return attention + carried + window

    @property
    def nbytes(self) -> int:
        """Bytes of the whole state; room to grow comes on top, at most as much as the window."""
        layers = itertools.chain(self.layers, self.window_start, *self.wake_layers)
        delta = sum(s.nbytes for s in layers if isinstance(s, DeltaState))
        return self.cache_nbytes + delta

    def map(self, function: Callable[[Tensor], Tensor]) -> MemoryState:
        """The state with `function` applied to every tensor."""
        return dataclasses.replace(
            self,
            layers=tuple(layer.map(function) for layer in self.layers),
            window_tokens=function(self.window_tokens),
            window_mask=None if self.window_mask is None else function(self.window_mask),
            window_hidden=function(self.window_hidden),
            carried=None if self.carried is None else self.carried.map(function),
            window_start=tuple(s if s is None else s.map(function) for s in self.window_start),
            wake_layers=tuple(
                tuple(layer.map(function) for layer in layers) for layers in self.wake_layers
            ),
        )

    def evict(self) -> MemoryState:
        """Drops the window: keys, values, tokens, hidden states. The fast weights stay.

        What was carried into the window stays as well.
        """
        count = self.num_carried
        layers = (
            layer.evict(count) if isinstance(layer, AttentionState) else layer.evict()
            for layer in self.layers
        )
        return dataclasses.replace(self._without_window(), layers=tuple(layers))

    def slide(self, band: Band) -> MemoryState:
        """Drops the window but for the keys and values that `band` lets later tokens see.

        Those are the newest `reach` - 1 tokens, padding included, and the first `sinks` of the
        stream. Convolution tails and fast weights stay.
        """
        total = self.num_carried + self.window_fill
        first = min(band.sinks, total)
        newest = min(band.reach - 1, total - first)
        layers = (
            layer.slide(first, newest) if isinstance(layer, AttentionState) else layer
            for layer in self.layers
        )
        mask = self.cache_mask()
        carried = Carried(
            count=first + newest,
            band=band,
            start=self._count_real_tokens(),
            mask=None if mask is None else keep_ends(mask, first, newest),
        )
        return dataclasses.replace(self._without_window(), layers=tuple(layers), carried=carried)

    def cache_mask(self) -> Tensor | None:
        """(B, carried + W) bool: which cached tokens are no padding; None if all are none."""
        before = None if self.carried is None else self.carried.mask
        if before is None and self.window_mask is None:
            return None
        B, device = self.batch_size, self.window_tokens.device
        if before is None:
            before = torch.ones(B, self.num_carried, dtype=torch.bool, device=device)
        window = self.window_mask
        if window is None:
            window = torch.ones(B, self.window_fill, dtype=torch.bool, device=device)
        return torch.cat([before, window], dim=1)

    def _count_real_tokens(self) -> Tensor:
        """(B,) int64: tokens of the stream so far, padding aside."""
        B, device = self.batch_size, self.window_tokens.device
        past = torch.zeros(B, dtype=torch.int64, device=device)
        if self.carried is not None:
            past = self.carried.start
        return past + (self.window_fill if self.window_mask is None else self.window_mask.sum(1))

    def _without_window(self) -> MemoryState:
        return dataclasses.replace(
            self,
            window_tokens=self.window_tokens[:, :0].clone(),
            window_mask=None,
            window_hidden=self.window_hidden[:, :0].clone(),
            window_start=(),
            wake_layers=(),
        )

    def detach(self) -> MemoryState:
        """The same state, cut from the graph that made it."""
        return self.map(lambda tensor: tensor.detach())

    def repeat(self, copies: int) -> MemoryState:
        """Each stream `copies` times in a row, (B * copies) streams, for questions asked apart."""
        if copies < 1:
            raise ValueError(f"copies must be at least 1, got {copies}; ask for one copy or more")
        return self.map(lambda tensor: tensor.repeat_interleave(copies, dim=0))


def keep_ends(tensor: Tensor, first: int, newest: int) -> Tensor:
    """A copy of tensor (B, W, ...) that holds its `first` and its `newest` places alone."""
    return torch.cat([tensor[:, :first], tensor[:, tensor.shape[1] - newest :]], dim=1)
