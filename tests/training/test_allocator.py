"""Memory that a step frees is there for the next one, without the system zeroing it anew."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from slowwave.training.process import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
for step in range(40):  # the heap needs up to eight steps to find its size
    if step == 30:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24).sum()  # 64 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _page_faults(mode: str) -> int:
    command = [sys.executable, "-c", PROGRAM, mode]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_freed_tensors_are_not_zeroed_anew_by_the_system() -> None:
    assert _page_faults("kept") < 1000 < _page_faults("returned")
