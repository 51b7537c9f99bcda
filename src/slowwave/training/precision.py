"""In which dtype matrix products run: what a config asks, and what suits the processor."""

from __future__ import annotations

import functools
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal

import torch

from slowwave.training.config import Precision

ROWS, WIDTH = 512, 256  # of a small training step
ROUNDS = 5


def choose_precision(asked: Precision, device: torch.device) -> Literal["float32", "bfloat16"]:
    """What is asked for; for "auto" bfloat16, or float32 where bfloat16 is slower."""
    if asked != "auto":
        return asked
    return "float32" if is_bfloat16_slow(device.type) else "bfloat16"


def compute_dtype(asked: Precision, device: torch.device) -> torch.dtype | None:
    """The same for `HybridLM.set_compute_dtype`: None is the weights' own dtype, float32."""
    return torch.bfloat16 if choose_precision(asked, device) == "bfloat16" else None


def iteration_dtype(device: torch.device) -> torch.dtype:
    """The dtype of Muon's iterations, whatever the precision of the model: the quicker one.

    They bear bfloat16, as torch's Muon has it.
    """
    return torch.float32 if is_bfloat16_slow(device.type) else torch.bfloat16


def describe_precision(precision: Precision, device: torch.device) -> dict[str, str]:
    """What a run computes in, for its record: matrix products, and Muon's iterations."""
    muon = str(iteration_dtype(device)).removeprefix("torch.")
    return {"precision": choose_precision(precision, device), "muon": muon}


def describe_slow_choice(precision: Precision, device: torch.device) -> str:
    """A warning in one sentence if the precision is a slow one here; empty if not."""
    if precision != "bfloat16" or not is_bfloat16_slow(device.type):
        return ""
    return (
        "train.precision is bfloat16, in which products take this machine longer than in float32; "
        "begin a run with auto or float32 to train faster"
    )


@contextmanager
def narrow_products(device: torch.device) -> Generator[None]:
    """Multiplies matrices of float32 in bfloat16 (sums are float32), where that is quicker.

    For what is read without gradients: where they are, torch is slower this way on a CPU.
    """
    before = torch.get_float32_matmul_precision()
    if not is_bfloat16_slow(device.type):
        torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


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
