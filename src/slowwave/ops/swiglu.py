"""The activation of a feed-forward layer: silu(gate) * value (arXiv 2002.05202)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from slowwave.ops import native


def swiglu(up: Tensor) -> Tensor:
    """up (..., 2 h), gates before values -> (..., h), in the dtype of up."""
    if native.can_read(up):  # in one pass over memory
        return torch.ops.slowwave.swiglu(up)
    gate, value = up.chunk(2, dim=-1)
    return F.silu(gate) * value
