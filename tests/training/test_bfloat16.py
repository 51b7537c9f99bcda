"""bfloat16 counts as slow where its products are, however the processor is told to be."""

from __future__ import annotations

import itertools
import os
import platform
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from slowwave.training import precision
from slowwave.training.precision import is_bfloat16_slow

WITHOUT_AVX512 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}


@pytest.fixture(autouse=True)
def _ask_anew() -> Iterator[None]:
    is_bfloat16_slow.cache_clear()
    yield
    is_bfloat16_slow.cache_clear()


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("narrow", "wide", "slow"),
    [((9.0, 0.5), (1.0, 1.0), False), ((1.5, 1.5), (9.0, 1.0), True), ((1.0, 5), (1.0, 5), False)],
)
def test_the_faster_dtype_wins_by_its_best_time(
    monkeypatch: pytest.MonkeyPatch, narrow: tuple[float, ...], wide: tuple[float, ...], slow: bool
) -> None:
    """A time is too long where other work came between, never too short."""
    times = itertools.chain.from_iterable(zip(narrow, wide, strict=True))
    times = itertools.chain(times, itertools.repeat(20.0))
    threads: list[int] = []

    def measure(dtype: torch.dtype) -> float:
        threads.append(torch.get_num_threads())
        return next(times)

    monkeypatch.setattr(precision, "_time", measure)
    assert is_bfloat16_slow("cpu") == slow
    asked = len(threads)
    assert is_bfloat16_slow("cpu") == slow, "measured once a process"
    assert len(threads) == asked and set(threads) == {1}
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("supported", [True, False])
def test_a_gpu_is_asked(monkeypatch: pytest.MonkeyPatch, supported: bool) -> None:
    def answer(*, including_emulation: bool) -> bool:
        return supported and not including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", answer)
    assert is_bfloat16_slow("cuda") != supported


@pytest.mark.skipif(platform.machine() != "x86_64", reason="about processors with AVX")
def test_it_is_slow_without_avx512() -> None:
    code = (
        "from slowwave.training.precision import is_bfloat16_slow; print(is_bfloat16_slow('cpu'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **WITHOUT_AVX512},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "True"
