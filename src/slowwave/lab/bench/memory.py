"""The memory that one call adds, or that a long run holds, measured in a process of its own."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from slowwave.lab.bench.progress import LOG
from slowwave.status_line import show_seconds

STATUS = Path("/proc/self/status")
# Freed blocks above this size go back to the system, so that what a later call takes is seen.
RETURN_NBYTES = 64 * 1024
CALLS = 3
POLL_SECONDS = 1.0


class Pause(NamedTuple):
    """A pause of a run: the process's resident memory, and what the run yielded there."""

    nbytes: int
    value: int


def measure_extra_nbytes(module: str, function: str, *arguments: str) -> int | None:
    """The peak that a call of the work adds to what is resident before it, after a first one.

    `function` of `module` makes the work from `arguments`; the median of CALLS calls. On CUDA this
    counts what torch allocates. None where the system does not tell (it must be Linux).
    """
    extra = _run_fresh("report_extra", module, function, *arguments)
    return None if extra is None else int(extra[0])


def measure_paused(module: str, function: str, *arguments: str) -> list[Pause] | None:
    """Resident memory at every pause of a run: `function` makes an iterator from `arguments`.

    None where the system does not tell (it must be Linux).
    """
    pauses = _run_fresh("report_paused", module, function, *arguments)
    return None if pauses is None else [Pause(*pause) for pause in pauses]


def report_extra(module: str, function: str, *arguments: str) -> list[int]:
    """Runs in the fresh process."""
    work: Callable[[], object] = getattr(importlib.import_module(module), function)(*arguments)
    measure = _extra_on_cuda if torch.cuda.is_available() else _extra_on_cpu
    work()
    return [int(statistics.median(measure(work) for _ in range(CALLS)))]


def report_paused(module: str, function: str, *arguments: str) -> list[tuple[int, int]]:
    """Runs in the fresh process."""
    pauses = getattr(importlib.import_module(module), function)(*arguments)
    return [(_resident("VmRSS"), value) for value in pauses]


def _run_fresh(reporter: str, *arguments: str) -> list[Any] | None:
    if not (torch.cuda.is_available() or STATUS.exists()):
        return None
    environment = dict(os.environ)
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
        environment[name] = str(RETURN_NBYTES)
    script = (
        f"import json, sys; from {__name__} import {reporter}; "
        f"print(json.dumps({reporter}(*sys.argv[1:])))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        out, errors = _wait(process, " ".join(arguments[1:]))
    if process.returncode:
        *_, reason = errors.strip().splitlines() or ["no reason given"]
        raise ValueError(f"measuring the memory of {arguments} failed: {reason}")
    return json.loads(out.splitlines()[-1])


def _wait(process: subprocess.Popen[str], work: str) -> tuple[str, str]:
    """What a process printed, on stdout and on stderr; killed if we are interrupted."""
    began = time.monotonic()
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.communicate(timeout=POLL_SECONDS)
            seconds = time.monotonic() - began
            LOG.info("%s in a process of its own, for %s", work, show_seconds(seconds))
    except BaseException:
        process.kill()
        raise


def _extra_on_cuda(work: Callable[[], object]) -> int:
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    return torch.cuda.max_memory_allocated() - before


def _extra_on_cpu(work: Callable[[], object]) -> int:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts from now
    before = _resident("VmRSS")
    work()
    return max(0, _resident("VmHWM") - before)


def _resident(field: str) -> int:
    lines = STATUS.read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith(field))
    return int(line.split()[1]) * 1024
