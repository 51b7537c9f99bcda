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
