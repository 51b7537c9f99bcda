"""Whether bfloat16 is worth it on a device, found out by trying."""

from __future__ import annotations

import functools
import time
from collections.abc import Generator
from contextlib import contextmanager

import torch

ROWS, WIDTH = 512, 256  # of a small training step
ROUNDS = 5


@functools.cache
def is_bfloat16_slow(device_type: str) -> bool:
    """Whether a product of matrices takes longer in bfloat16 than in float32 on such a device.

    A processor without AVX-512 takes ten times as long and more, one that has AVX-512 but no
    instructions for bfloat16 five times: torch then widens every number by itself. A GPU is asked,
    a CPU is timed, once a process.
    """
    if device_type == "cuda":
        return not torch.cuda.is_bf16_supported(including_emulation=False)
    with _one_thread():
        times = [(_time(torch.bfloat16), _time(torch.float32)) for _ in range(ROUNDS)]
    narrow, wide = zip(*times, strict=True)
    return min(narrow) > min(wide)


@contextmanager
def _one_thread() -> Generator[None]:
    """Several threads would wait for one another where other work shares the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _time(dtype: torch.dtype) -> float:
    """Seconds of one product."""
    x, weight = torch.ones(ROWS, WIDTH, dtype=dtype), torch.ones(WIDTH, WIDTH, dtype=dtype)
    began = time.perf_counter()
    torch.mm(x, weight)
    return time.perf_counter() - began
