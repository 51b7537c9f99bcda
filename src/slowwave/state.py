"""What a model holds between two calls: pure immutable data, one entry a layer.

Axis letters, the legend of the whole package: B batch, T tokens in this call, W tokens in the
window, L window length, D model width, H query/key heads, G value heads, K key size, V value
size, C conv channels, E compact entries, R replayed tokens, N sleep passes.

No function writes into a tensor it was given. Cutting a state loose (`fork`) therefore costs
nothing, and gradients flow through memory.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from slowwave.delta import LowRankDelta
from slowwave.entries import CompactKeyValues
from slowwave.part import Function, Part


@dataclasses.dataclass(frozen=True, slots=True)
class PrimeDelta(Part):
    """What sleeps have added to the weights of a prime MLP; mid-term memory of a block.

    up: (B, 2 h, D). out: (B, D, h). float32 (float64 when checking), zero before the first sleep.
    """

    up: Tensor
    out: Tensor


@dataclasses.dataclass(frozen=True, slots=True)
class LayerState(Part):
    """What one layer holds of a stream.

    prime: of its block's prime MLP, beside what its mixer holds; None if it has none.
    """

    prime: PrimeDelta | None = dataclasses.field(default=None, kw_only=True)
    per_token: ClassVar[bool]
    """Whether its mixer's tensors are (B, W, ...), an entry for each token in sight: short-term
    memory, which a sleep clears. Others are mid-term memory, and outlive it."""

    @property
    def narrow_dtype(self) -> torch.dtype:
        """The compute dtype of the model that made it."""
        raise NotImplementedError

    @property
    def fast_weights(self) -> tuple[Tensor, ...]:
        """The fast weights in it, (B, G, K, V) each."""
        return ()

    @property
    def cache_nbytes(self) -> int:
        """Bytes of what a sleep clears."""
        return self.nbytes if self.per_token else 0

    def evict(self, carried: int = 0) -> Self:
        """What outlives a sleep, beside the `carried` tokens before the window."""
        raise NotImplementedError

    def slide(self, first: int, newest: int) -> Self:
        """With the `first` and the `newest` of the tokens in sight alone, in order."""
        raise NotImplementedError

    def with_midterm(self, other: LayerState) -> Self:
        """With the mid-term memory of another state of the same layer."""
        raise NotImplementedError

    def outline(self, batch_size: int, tokens: int) -> Self:
        """The same for other sizes on the meta device, where tensors have no memory."""
        sizes = (batch_size, tokens) if self.per_token else (batch_size,)
        mixed = dataclasses.replace(self, prime=None)
        mixed = mixed.map(lambda like: _outline(like, *sizes, *like.shape[len(sizes) :]))
        if self.prime is None:
            return mixed
        prime = self.prime.map(lambda like: _outline(like, batch_size, *like.shape[1:]))
        return dataclasses.replace(mixed, prime=prime)


def _outline(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device="meta")


@dataclasses.dataclass(frozen=True, slots=True)
class KeyValues(LayerState):
    """Memory of one attention layer.

    keys, values: (B, W, Hkv, Dh), keys already rotated to their position: short-term memory.
    compact: what sleep kept of earlier windows, mid-term memory; None if it kept nothing yet.
    """

    keys: Tensor
    values: Tensor
    compact: CompactKeyValues | None = None
    per_token: ClassVar[bool] = True

    @property
    def narrow_dtype(self) -> torch.dtype:
        """See `LayerState`."""
        return self.keys.dtype

    @property
    def cache_nbytes(self) -> int:
        """See `LayerState`."""
        return self.keys.nbytes + self.values.nbytes

    def evict(self, carried: int = 0) -> KeyValues:
        """See `LayerState`."""
        # Cloned: a view would keep the whole window's storage alive.
        return self._with_window(lambda tensor: tensor[:, :carried].clone())

    def slide(self, first: int, newest: int) -> KeyValues:
        """See `LayerState`."""
        return self._with_window(lambda tensor: keep_ends(tensor, first, newest))

    def with_midterm(self, other: LayerState) -> KeyValues:
        """See `LayerState`."""
        assert isinstance(other, KeyValues)
        return dataclasses.replace(self, compact=other.compact, prime=other.prime)

    def outline(self, batch_size: int, tokens: int) -> KeyValues:
        """See `LayerState`: without compact entries, whose number no size tells."""
        outlined = dataclasses.replace(self, compact=None)
        return super(KeyValues, outlined).outline(batch_size, tokens)

    def _with_window(self, change: Function) -> KeyValues:
        return dataclasses.replace(self, keys=change(self.keys), values=change(self.values))


@dataclasses.dataclass(frozen=True, slots=True)
class FastWeights(LayerState):
    """Mid-term memory of one recurrent layer.

    weights: (B, G, K, V), float32 (float64 when checking): all that outlives a sleep.
    conv_tail: (B, w-1, C), the last inputs of the convolution; zero at a window's start.
    """

    weights: Tensor = dataclasses.field(metadata={"name": "fast_weights"})
    conv_tail: Tensor
    per_token: ClassVar[bool] = False

    @property
    def narrow_dtype(self) -> torch.dtype:
        """See `LayerState`."""
        return self.conv_tail.dtype

    @property
    def fast_weights(self) -> tuple[Tensor, ...]:
        """See `LayerState`."""
        return (self.weights,)

    def evict(self, carried: int = 0) -> FastWeights:
        """See `LayerState`: nothing but the fast weights crosses the boundary."""
        return dataclasses.replace(self, conv_tail=torch.zeros_like(self.conv_tail))

    def slide(self, first: int, newest: int) -> FastWeights:
        """See `LayerState`: it has no entry a token."""
        return self

    def with_midterm(self, other: LayerState) -> FastWeights:
        """See `LayerState`."""
        (weights,) = other.fast_weights
        return dataclasses.replace(self, weights=weights, prime=other.prime)


class Counters(NamedTuple):
    """Where a stream stands: tokens read in all, sleeps, and tokens since the last one."""

    tokens_seen: int
    num_sleeps: int
    window_fill: int


class Band(NamedTuple):
    """How far attention sees: a token itself, `reach` - 1 before it, the first `sinks` cached."""

    reach: int
    sinks: int


@dataclasses.dataclass(frozen=True, slots=True)
class Carried(Part):
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


@dataclasses.dataclass(frozen=True, slots=True)
class MemoryState(Part):
    """All that a stream has left behind, for B streams side by side.

    layers: one state a layer, in the order of the model.
    window_tokens: (B, W) int64, read since the last sleep.
    window_mask: (B, W) bool, False marks padding, which no pass sees; None when nothing is padded.
    window_hidden: (B, W, D), what the looped blocks put out for the window; pass 2 reads this.
    tokens_seen: (B,) int64, tokens read in all, padding included.
    num_sleeps: (B,) int64, windows consolidated and evicted so far.
    carried: what attention sees of earlier windows; None unless eviction slides.
    window_start: one entry a layer, recurrent ones as they were when the window opened, None for
    the rest; empty unless some pass starts there again.
    wake_layers: as `layers`, one entry a wake pass after the first (`sleep.wake_passes`).
    position: (B,) int64, the rotary position at which the open window begins; None is 0.
    delta: what the stream adds to matrices of the model, which sleeps leave as it is; None for
    nothing.
    """

    layers: tuple[LayerState, ...]
    window_tokens: Tensor = dataclasses.field(metadata={"name": "window.tokens"})
    window_mask: Tensor | None = dataclasses.field(metadata={"name": "window.mask"})
    window_hidden: Tensor = dataclasses.field(metadata={"name": "window.hidden"})
    tokens_seen: Tensor = dataclasses.field(metadata={"name": None})
    num_sleeps: Tensor = dataclasses.field(metadata={"name": None})
    carried: Carried | None = None
    window_start: tuple[LayerState | None, ...] = ()
    wake_layers: tuple[tuple[LayerState, ...], ...] = dataclasses.field(
        default=(), metadata={"name": "wake", "first": 2}
    )
    position: Tensor | None = None
    delta: LowRankDelta | None = None

    @property
    def batch_size(self) -> int:
        """B, the number of streams."""
        return self.window_tokens.shape[0]

    @property
    def window_fill(self) -> int:
        """W, the number of tokens read since the last sleep."""
        return self.window_tokens.shape[1]

    @property
    def counters(self) -> Counters:
        """Where a stream stands; raises ValueError if several streams of the batch differ."""
        counts = {(int(t), int(n)) for t, n in zip(self.tokens_seen, self.num_sleeps, strict=True)}
        if len(counts) > 1:
            raise ValueError("streams of the batch stand at different places; take a row alone")
        ((tokens_seen, num_sleeps),) = counts
        return Counters(tokens_seen, num_sleeps, self.window_fill)

    @property
    def fast_weights(self) -> tuple[Tensor, ...]:
        """The fast weights of every recurrent layer, (B, G, K, V) each."""
        return tuple(itertools.chain(*(layer.fast_weights for layer in self.layers)))

    @property
    def primes(self) -> tuple[PrimeDelta, ...]:
        """What sleeps have added to every prime MLP."""
        return tuple(layer.prime for layer in self.layers if layer.prime is not None)

    @property
    def num_carried(self) -> int:
        """Tokens of slept windows that attention still sees."""
        return 0 if self.carried is None else self.carried.count

    @property
    def num_entries(self) -> int:
        """Compact entries of all heads, layers and streams."""
        compact = (layer.compact for layer in self.layers if isinstance(layer, KeyValues))
        return sum(int(each.num_entries.sum()) for each in compact if each is not None)

    @property
    def cache_nbytes(self) -> int:
        """Bytes of short-term memory: keys, values, and the window's tokens and hidden states."""
        layers = itertools.chain(self.layers, *self.wake_layers)
        cleared = sum(layer.cache_nbytes for layer in layers)
        mask = 0 if self.window_mask is None else self.window_mask.nbytes
        carried = 0 if self.carried is None else self.carried.nbytes
        return cleared + carried + mask + self.window_tokens.nbytes + self.window_hidden.nbytes

    def evict(self) -> MemoryState:
        """Drops the window: keys, values, tokens, hidden states. The fast weights stay.

        What was carried into the window stays as well.
        """
        count = self.num_carried
        layers = (layer.evict(count) for layer in self.layers)
        return dataclasses.replace(self._without_window(), layers=tuple(layers))

    def slide(self, band: Band) -> MemoryState:
        """Drops the window but for the keys and values that `band` lets later tokens see.

        Those are the newest `reach` - 1 tokens, padding included, and the first `sinks` of the
        stream. Convolution tails and fast weights stay.
        """
        total = self.num_carried + self.window_fill
        first = min(band.sinks, total)
        newest = min(band.reach - 1, total - first)
        layers = (layer.slide(first, newest) for layer in self.layers)
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

    def after_sleep(self) -> MemoryState:
        """The same, one sleep later."""
        return dataclasses.replace(self, num_sleeps=self.num_sleeps + 1)

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
