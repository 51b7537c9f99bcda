"""Products of matrices and triangular solves, each by what is quickest at its size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from slowwave.ops import native

ONEDNN_ROWS = 16
"""From this many rows on oneDNN is ahead; fewer are a matter of memory, not of products."""

FEW_ROWS = 4
"""Of matrices as small as this, one BLAS call a matrix costs more than the sums."""


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


def small_matmul(a: Tensor, b: Tensor) -> Tensor:
    """a (..., M, K) @ b (..., K, N); as a fused sum of products when M and either K or N are tiny.

    Questions of a few tokens, asked by the thousand, make such matrices.
    """
    M, K = a.shape[-2:]
    N = b.shape[-1]
    if M > FEW_ROWS or min(K, N) > FEW_ROWS:
        return a @ b
    if K <= FEW_ROWS:
        return (a[..., :, :, None] * b[..., None, :, :]).sum(-2)
    return (a[..., :, None, :] * b.mT[..., None, :, :]).sum(-1)


def solve_unit_lower(system: Tensor, wanted: Tensor, *, transpose: bool = False) -> Tensor:
    """Solves (I + strict_lower(system)) x = wanted, or with the matrix transposed.

    system: (..., M, M), not read on and above its diagonal. wanted: (..., M, N).
    """
    M = system.shape[-1]
    if M > FEW_ROWS:
        matrix = system.mT if transpose else system
        return torch.linalg.solve_triangular(matrix, wanted, upper=transpose, unitriangular=True)
    solved: dict[int, Tensor] = {}
    for i in reversed(range(M)) if transpose else range(M):
        row = wanted[..., i, :]
        for j, other in solved.items():
            weight = system[..., j, i] if transpose else system[..., i, j]
            row = row - weight[..., None] * other
        solved[i] = row
    return torch.stack([solved[i] for i in range(M)], dim=-2)
