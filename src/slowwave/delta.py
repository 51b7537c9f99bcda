"""What a stream adds to some of its model's matrices: changes of low rank, a part of its state.

Each stream has its own, and the weights that all of them share stay as they are.
"""

from __future__ import annotations

import dataclasses
from typing import Self

import torch
from torch import Tensor

from slowwave.part import Part


@dataclasses.dataclass(frozen=True, slots=True)
class LowRank(Part):
    """A change `up @ down` of one matrix (LoRA, arXiv 2106.09685).

    down: (B, rank, in), up: (B, out, rank), float32 (float64 when checking).
    """

    down: Tensor
    up: Tensor

    def add(self, product: Tensor, x: Tensor) -> Tensor:
        """The matrix's product (B * F, T, out) with x (B * F, T, in), and what the change adds.

        Each stream's F forks stand side by side. The dtype is the product's.
        """
        dtype = product.dtype
        rows = x.to(dtype).reshape(len(self.down), -1, x.shape[-1])
        change = rows @ self.down.to(dtype).mT @ self.up.to(dtype).mT
        return product + change.view_as(product)


@dataclasses.dataclass(frozen=True, slots=True)
class LowRankDelta(Part):
    """Changes of the last matrix of every block's feed-forward layer, in the order of the model."""

    layers: tuple[LowRank, ...]

    @classmethod
    def zeros(
        cls,
        batch_size: int,
        num_layers: int,
        *,
        rank: int,
        inner: int,
        width: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Self:
        """Changes of matrices from `inner` to `width` that add nothing."""

        def make(*shape: int) -> Tensor:
            return torch.zeros(batch_size, *shape, dtype=dtype, device=device)

        each = (LowRank(make(rank, inner), make(width, rank)) for _ in range(num_layers))
        return cls(tuple(each))

    def draw(self, generator: torch.Generator) -> Self:
        """The same with `down` drawn, so that it can be learned; where `up` is zero nothing is
        added."""

        def draw(change: LowRank) -> LowRank:
            down = (
                torch.randn(change.down.shape, generator=generator) * change.down.shape[-1] ** -0.5
            )
            return LowRank(down.to(change.down), change.up)

        return type(self)(tuple(map(draw, self.layers)))

    @property
    def rank(self) -> int:
        """Of every change."""
        return self.layers[0].down.shape[1]

    @property
    def is_finite(self) -> bool:
        """Whether it holds neither NaN nor infinity."""
        return all(bool(tensor.isfinite().all()) for tensor in self.tensors().values())
