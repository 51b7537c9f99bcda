"""Compact keys and values: what sleep keeps of the windows that attention has lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from slowwave.part import Function, Part

PINNED = torch.finfo(torch.float32).max
"""The score of an entry that no sleep drops."""


class HeadEntries(NamedTuple):
    """Entries of one KV head: keys, values (B, E, Dh), bias (B, E), -inf where a row has fewer."""

    keys: Tensor
    values: Tensor
    bias: Tensor


class Entries(NamedTuple):
    """Entries of one KV head of one stream; see `CompactKeyValues`.

    keys, values: (E, Dh). bias, score, position, place: (E,).
    """

    keys: Tensor
    values: Tensor
    bias: Tensor
    score: Tensor
    position: Tensor
    place: Tensor

    @classmethod
    def of_tokens(cls, keys: Tensor, values: Tensor, position: Tensor, place: Tensor) -> Self:
        """One entry a token, as it is, pinned. keys, values: (W, Dh). position, place: (W,)."""
        score = torch.full_like(place, PINNED, dtype=torch.float32)
        return cls(keys, values, torch.zeros_like(keys[:, 0]), score, position, place)

    @classmethod
    def join(cls, parts: Sequence[Entries]) -> Self:
        """All entries of several."""
        return cls(*(torch.cat(each) for each in zip(*parts, strict=True)))

    def take(self, index: Tensor) -> Entries:
        """Those at some places."""
        return Entries(*(tensor[index] for tensor in self))


@dataclasses.dataclass(frozen=True, slots=True)
class CompactKeyValues(Part):
    """Mid-term memory of one attention layer: keys with values and a bias, some of each KV head.

    Entries of all heads stand in a row, head after head: budgets are uneven, and padding to the
    longest head would eat what they save. Rows of a batch that have fewer are padded at the end.

    keys, values: (B, E, Dh) float32 (float64 when checking), keys rotated to their position.
    bias: (B, E), what is added to the scores of attention, whose exponential says for how many keys
    an entry stands. score: (B, E) float32, what an entry is worth when later ones want its room;
    PINNED for those that stay for ever. position: (B, E) int64, the rotary position that the key is
    turned to. place: (B, E) int64, tokens of the stream before the one it is of. lengths: (B, Hkv)
    int64, entries of each head.
    """

    keys: Tensor
    values: Tensor
    bias: Tensor
    score: Tensor
    position: Tensor
    place: Tensor
    lengths: Tensor

    @classmethod
    def empty(
        cls,
        B: int,
        count: int,
        heads: int,
        size: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Self:
        """Room for `count` entries of each stream, whose values mean nothing."""
        wide = torch.empty(B, count, size, dtype=dtype, device=device)
        place = torch.empty(B, count, dtype=torch.int64, device=device)
        lengths = torch.empty(B, heads, dtype=torch.int64, device=device)
        score = torch.empty(B, count, dtype=torch.float32, device=device)
        # No tensor twice: a file has a name for each.
        return cls(wide, wide.clone(), wide[..., 0].clone(), score, place, place.clone(), lengths)

    @classmethod
    def of_none(cls, keys: Tensor) -> Self:
        """No entries, for as many streams and heads as keys (B, W, Hkv, Dh) have."""
        B, _, heads, size = keys.shape
        wide = torch.float64 if keys.dtype == torch.float64 else torch.float32
        none = cls.empty(B, 0, heads, size, dtype=wide, device=keys.device)
        return dataclasses.replace(none, lengths=torch.zeros_like(none.lengths))

    @property
    def num_entries(self) -> Tensor:
        """(B,) int64: entries of all heads together."""
        return self.lengths.sum(1)

    @property
    def is_empty(self) -> bool:
        """Whether no row has an entry."""
        return self.keys.shape[1] == 0

    @property
    def nbytes(self) -> int:
        """Bytes of all entries, padding aside."""
        each = sum(
            tensor.element_size() * tensor[0, 0].numel()
            for name, tensor in self.tensors().items()
            if name != "lengths" and not self.is_empty
        )
        return self.lengths.nbytes + each * int(self.num_entries.sum())

    def row(self, i: int) -> Self:
        """The stream at place `i` of the batch, without padding."""
        alone = self.map(lambda tensor: tensor[i : i + 1])
        count = int(alone.num_entries)
        return alone._per_entry(lambda tensor: tensor[:, :count])

    @classmethod
    def stack(cls, parts: Sequence[Any]) -> Self:
        """The streams of several batches side by side, padded to the one with most entries."""
        rows = [part.row(i) for part in parts for i in range(len(part.lengths))]
        if len(rows) == 1:
            return rows[0]
        values = {
            field.name: pad_sequence(
                [getattr(row, field.name)[0] for row in rows], batch_first=True
            )
            for field in dataclasses.fields(cls)
        }
        return cls(**values)

    @classmethod
    def of_stream(cls, heads: Sequence[Entries]) -> Self:
        """The entries of every KV head of one stream."""
        lengths = torch.tensor([[len(head.place) for head in heads]], device=heads[0].place.device)
        joined = Entries.join(heads)._asdict().items()
        return cls(**{name: tensor[None] for name, tensor in joined}, lengths=lengths)

    def list_heads(self) -> list[Entries]:
        """The entries of every KV head of the only stream."""
        assert len(self.lengths) == 1
        counts = self.lengths[0].tolist()
        tensors = (getattr(self, name)[0].split(counts) for name in Entries._fields)
        return [Entries(*each) for each in zip(*tensors, strict=True)]

    def heads(self) -> list[HeadEntries]:
        """The entries of each KV head."""
        if len(self.lengths) == 1:
            counts = self.lengths[0].tolist()
            parts = (tensor.split(counts, dim=1) for tensor in (self.keys, self.values, self.bias))
            return [HeadEntries(*each) for each in zip(*parts, strict=True)]
        starts = self.lengths.cumsum(1) - self.lengths
        pairs = zip(starts.unbind(1), self.lengths.unbind(1), strict=True)
        return [self._gather_head(start[:, None], length[:, None]) for start, length in pairs]

    def _gather_head(self, start: Tensor, length: Tensor) -> HeadEntries:
        """The entries of a head that begins at start (B, 1) and has length (B, 1) of them."""
        places = torch.arange(int(length.max()), device=start.device)[None]
        is_there = places < length
        index = (start + places).where(is_there, 0)
        wide = index[..., None].expand(-1, -1, self.keys.shape[-1])
        bias = self.bias.gather(1, index).masked_fill(~is_there, -torch.inf)
        return HeadEntries(self.keys.gather(1, wide), self.values.gather(1, wide), bias)

    def _per_entry(self, function: Function) -> Self:
        values = {name: function(tensor) for name, tensor in self.tensors().items()}
        return type(self)(**(values | {"lengths": self.lengths}))
