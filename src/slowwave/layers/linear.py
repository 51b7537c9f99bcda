"""The two weight-holding primitives, with an explicit dtype policy instead of autocast.

Weights are float32 master weights. A model in bfloat16 casts the inputs and weights of its
matrix products to bfloat16 and nothing else: norms, residual stream, decays, gates, fast weights
and logits stay float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slowwave.ops.linear import linear
from slowwave.ops.norm import rms_norm


class Linear(nn.Linear):
    """A matrix without bias whose product runs in `compute_dtype` (its weight's dtype if None)."""

    compute_dtype: torch.dtype | None = None

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """input (..., in_features) -> (..., out_features) in the compute dtype."""
        dtype = self.compute_dtype or self.weight.dtype
        return linear(input.to(dtype), self.weight.to(dtype))


class RMSNorm(nn.Module):
    """Root-mean-square norm with a learned scale (arXiv 1910.07467), computed in float32."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x (..., width) -> the same shape, float32 (float64 for float64 inputs)."""
        return rms_norm(x, self.weight, self.eps)
