"""The product with a weight matrix, by the library that is quicker at it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from slowwave.ops import native

ONEDNN_ROWS = 16
"""From this many rows on oneDNN is ahead; fewer are a matter of memory, not of products."""


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., in) times the transpose of weight (out, in), both of one dtype.

    On a CPU torch leaves float32 products to MKL, which takes twice as long as oneDNN on processors
    that are not Intel's, and a single row to a routine that no vector unit ever sees. Torch reaches
    oneDNN's float32 products through an operator without gradients only, and ours has none, so all
    this is for reading, not for training.
    """
    has_few_rows = x.numel() < ONEDNN_ROWS * x.shape[-1]
    if has_few_rows and native.can_read(x):
        return torch.ops.slowwave.linear(x, weight)
    if not has_few_rows and _suits_onednn(x):
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return F.linear(x, weight)


def _suits_onednn(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_grad_enabled()
        and torch.backends.mkldnn.is_available()
    )
