"""Matrices of int8 numbers with a scale for each row and 32 columns, and products with them."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from slowwave.ops import native
from slowwave.ops.linear import ONEDNN_ROWS, linear

BLOCK = 32
MOST = 127


class Int8Matrix(NamedTuple):
    """A matrix (N, D): numbers (N, columns) int8, zero from D on, and scales (N, columns / 32)."""

    numbers: Tensor
    scales: Tensor


def quantize(weight: Tensor) -> Int8Matrix:
    """The nearest numbers of weight (N, D); the greatest of each block is exact.

    What is lost of a weight is at most half its block's greatest over 127. Scales are float32.
    """
    padded = F.pad(weight.detach().float(), (0, -weight.shape[1] % BLOCK))
    blocks = padded.unflatten(1, (-1, BLOCK))
    scales = blocks.abs().amax(-1) / MOST
    numbers = torch.where(scales[..., None] > 0, blocks / scales[..., None], 0).round()
    return Int8Matrix(numbers.to(torch.int8).flatten(1), scales)


def expand(matrix: Int8Matrix, columns: int) -> Tensor:
    """The matrix (N, columns) in float32."""
    if native.can_read(matrix.scales):
        return torch.ops.slowwave.int8_expand(*matrix, columns)
    blocks = matrix.numbers.unflatten(1, (-1, BLOCK)) * matrix.scales[..., None]
    return blocks.flatten(1)[:, :columns]


def int8_linear(x: Tensor, matrix: Int8Matrix) -> Tensor:
    """x (..., D) times the transpose of a matrix (N, D), in float32: (..., N).

    A few rows meet the numbers in registers; more are worth a matrix in float32, made for the call.
    """
    x = x.float()
    if x.numel() < ONEDNN_ROWS * x.shape[-1] and native.can_read(x):
        return torch.ops.slowwave.int8_linear(x, *matrix)
    return linear(x, expand(matrix, x.shape[-1]))
