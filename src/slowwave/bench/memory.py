"""The memory that one call adds, measured in a process of its own."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from slowwave.bench.timing import Work

STATUS = Path("/proc/self/status")
# Freed blocks above this size go back to the system, so that a second call can be seen.
RETURN_NBYTES = 64 * 1024


def measure_extra_nbytes(module: str, function: str, *arguments: str) -> int | None:
    """The peak that a second call of the work adds to what is resident before it.

    `function` of `module` makes the work from `arguments`. On CUDA this counts what torch
    allocates. None where the system does not tell (it must be Linux).
    """
    if not (torch.cuda.is_available() or STATUS.exists()):
        return None
    environment = dict(os.environ)
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
        environment[name] = str(RETURN_NBYTES)
    script = f"from {__name__} import report; report()"
    command = [sys.executable, "-c", script, module, function, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout.splitlines()[-1]))


def report() -> None:
    """Runs in the fresh process: makes the work, calls it twice, prints what the second added."""
    module, function, *arguments = sys.argv[1:]
    work: Work = getattr(importlib.import_module(module), function)(*arguments)
    work()
    print(json.dumps(_on_cuda(work) if torch.cuda.is_available() else _on_cpu(work)))


def _on_cuda(work: Work) -> int:
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    return torch.cuda.max_memory_allocated() - before


def _on_cpu(work: Work) -> int:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts from now
    before = _resident("VmRSS")
    work()
    return max(0, _resident("VmHWM") - before)


def _resident(field: str) -> int:
    lines = STATUS.read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith(field))
    return int(line.split()[1]) * 1024
