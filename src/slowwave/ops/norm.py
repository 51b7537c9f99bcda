"""Normalisations, always in float32 (float64 for float64 inputs), and the feed-forward gate."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from slowwave.ops import native


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of fast weights, decays, gates, norms and logits for inputs of `dtype`."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x (..., D) over its root mean square, times weight (D,); returns wide (float32/64)."""
    if native.can_read(x):
        return torch.ops.slowwave.rms_norm(x, weight, eps)
    x = x.to(wide_dtype(x.dtype))
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight.to(x.dtype)


def l2_norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    """x (..., K) over sqrt(sum x^2 + eps): eps inside the root, as in fla; returns wide."""
    x = x.to(wide_dtype(x.dtype))
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + eps)


def log_sum(x: Tensor) -> Tensor:
    """log(sum(exp(x))) of x (..., N), finite: (...)."""
    if native.can_read(x) and x.dtype == wide_dtype(x.dtype):
        return torch.ops.slowwave.log_sum(x)
    return x.logsumexp(-1)


def gelu_gate(up: Tensor) -> Tensor:
    """gelu(gate) * value, gelu by tanh: up (..., 2 h), gates before values -> (..., h)."""
    gate, value = up.chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh") * value


def swiglu(up: Tensor) -> Tensor:
    """silu(gate) * value: up (..., 2 h), gates before values -> (..., h), in the dtype of up.

    Source: arXiv 2002.05202.
    """
    if native.can_read(up):  # in one pass over memory
        return torch.ops.slowwave.swiglu(up)
    gate, value = up.chunk(2, dim=-1)
    return F.silu(gate) * value
