"""Products of many tiny matrices, where one BLAS call a matrix would cost more than the sums."""

from __future__ import annotations

import torch
from torch import Tensor

FEW_ROWS = 4


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


def solve_unit_lower(system: Tensor, wanted: Tensor) -> Tensor:
    """Solves (I + strict_lower(system)) x = wanted; system (..., M, M), wanted (..., M, N)."""
    M = system.shape[-1]
    if M > FEW_ROWS:
        return torch.linalg.solve_triangular(system, wanted, upper=False, unitriangular=True)
    rows: list[Tensor] = []
    for i in range(M):
        row = wanted[..., i, :]
        for j in range(i):
            row = row - system[..., i, j, None] * rows[j]
        rows.append(row)
    return torch.stack(rows, dim=-2)
