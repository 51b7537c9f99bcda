"""What the machine can do: its rate of matrix products and its memory bandwidth, measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch

from slowwave.lab.bench.timing import Work, time_in_turn
from slowwave.ops.linear import linear

SQUARE = 1024
COPY_NBYTES = 256 * 2**20
ROUNDS = 9

Shape = tuple[int, int, int]
"""Rows, inner size and columns of a matrix product."""


@dataclasses.dataclass(frozen=True, slots=True)
class Machine:
    """Rates that shares refer to, as measured in this run."""

    float32_gflops: float
    bfloat16_gflops: float
    bandwidth_gbytes: float
    """Bytes read and written per second by a copy much larger than any cache, in 1e9."""


def measure_machine(device: torch.device) -> Machine:
    """Square products in float32 and bfloat16, and a large copy."""
    square = {(SQUARE, SQUARE, SQUARE): 1}
    return Machine(
        float32_gflops=matmul_gflops(square, torch.float32, device),
        bfloat16_gflops=matmul_gflops(square, torch.bfloat16, device),
        bandwidth_gbytes=_measure_bandwidth(device),
    )


def matmul_gflops(shapes: Mapping[Shape, int], dtype: torch.dtype, device: torch.device) -> float:
    """GFLOP/s of products that follow each other; every shape occurs as often as it maps to.

    Each is taken by the fastest of the libraries that torch offers for it.
    """
    flops, seconds = 0.0, 0.0
    for shape, count in shapes.items():
        rows, inner, columns = shape
        times = time_in_turn(_product_works(shape, dtype, device), rounds=ROUNDS)
        seconds += count * min(each.median for each in times.values())
        flops += count * 2.0 * rows * inner * columns
    return flops / seconds / 1e9


def _product_works(shape: Shape, dtype: torch.dtype, device: torch.device) -> dict[str, Work]:
    rows, inner, columns = shape
    left = torch.ones(rows, inner, dtype=dtype, device=device)
    right = torch.ones(columns, inner, dtype=dtype, device=device)

    def by_linear() -> None:
        with torch.no_grad():
            linear(left, right)

    return {"matmul": Work(lambda: left @ right.T), "linear": Work(by_linear)}


def _measure_bandwidth(device: torch.device) -> float:
    source = torch.ones(COPY_NBYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = time_in_turn({"copy": Work(lambda: target.copy_(source))}, rounds=ROUNDS)["copy"]
    return 2 * COPY_NBYTES / copy.median / 1e9
