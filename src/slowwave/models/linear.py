"""The weight-holding primitives, with an explicit dtype policy instead of autocast.

Weights are float32 master weights. A model in bfloat16 casts the inputs and weights of its
matrix products to bfloat16 and nothing else: norms, residual stream, decays, gates, fast weights
and logits stay float32.
"""

from __future__ import annotations

import weakref
from typing import NamedTuple

import torch
from torch import Tensor, nn

from slowwave.ops.linear import linear
from slowwave.ops.norm import rms_norm


class _Cast(NamedTuple):
    """A weight in a narrower dtype, and what it was made from."""

    origin: weakref.ref[Tensor]
    version: int
    cast: Tensor

    def is_of(self, weight: Tensor, dtype: torch.dtype) -> bool:
        made_from = self.origin() is weight and self.version == weight._version
        return made_from and self.cast.dtype == dtype

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Copies and files of a module go without it."""
        return type(None), ()


class Linear(nn.Linear):
    """A matrix whose product runs in `compute_dtype` (its weight's dtype if None).

    Several sizes are fused matrices, stacked in one weight for the speed of one product. They stay
    matrices of their own to an optimizer that looks at a matrix as a whole (Muon).
    """

    compute_dtype: torch.dtype | None = None

    def __init__(self, in_features: int, *sizes: int, bias: bool = False) -> None:
        super().__init__(in_features, sum(sizes), bias=bias)
        self.sizes = sizes
        self._cast: _Cast | None = None

    def forward(self, input: Tensor) -> Tensor:
        """input (..., in_features) -> (..., sum of the sizes) in the compute dtype."""
        weight = self.narrow_weight()
        product = linear(input.to(weight.dtype), weight)
        return product if self.bias is None else product + self.bias.to(product.dtype)

    def wide_weight(self) -> Tensor:
        """The weight as it was learned, or what is left of it."""
        return self.weight

    def parts(self) -> list[Tensor | None]:
        """Weight, scales and bias as the compiled token takes them; only int8 has scales."""
        return [self.narrow_weight(), None, self.bias]

    def narrow_weight(self) -> Tensor:
        """The weight in the compute dtype, cast once for all calls that want no gradient.

        A change of the weight is seen, unless it goes through `weight.data`, which torch hides.
        """
        weight, dtype = self.weight, self.compute_dtype
        if dtype is None or dtype == weight.dtype:
            return weight
        if torch.compiler.is_compiling() or weight.is_inference():
            return weight.to(dtype)
        if torch.is_grad_enabled():
            self._cast = None
            return weight.to(dtype)
        if self._cast is None or not self._cast.is_of(weight, dtype):
            self._cast = _Cast(weakref.ref(weight), weight._version, weight.to(dtype))
        return self._cast.cast


class Embedding(nn.Embedding):
    """A vector for every token id, which may also be the matrix that makes the logits."""

    def multiply(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., vocab)."""
        return linear(x, self.weight)


class RMSNorm(nn.Module):
    """Root-mean-square norm with a learned scale (arXiv 1910.07467), computed in float32."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x (..., width) -> the same shape, float32 (float64 for float64 inputs)."""
        return rms_norm(x, self.weight, self.eps)
