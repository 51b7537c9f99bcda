"""How every benchmark measures: seconds in turn, bytes in fresh processes, the machine's rates."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import logging
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from slowwave.ops.linear import linear
from slowwave.status_line import StatusLine, show_seconds

# How far a benchmark is goes to this logger, so that no measurement has to hand on a status line.
LOG = logging.getLogger("slowwave.lab.bench")
LOG.setLevel(logging.WARNING)

LEAST_SECONDS = 0.01
"""A sample is of as many calls as take this long."""
SQUARE = 1024
COPY_NBYTES = 256 * 2**20
MACHINE_ROUNDS = 9
STATUS = Path("/proc/self/status")
# Freed blocks above this size go back to the system, so that what a later call takes is seen.
RETURN_NBYTES = 64 * 1024
MEMORY_CALLS = 3
POLL_SECONDS = 1.0

Shape = tuple[int, int, int]
"""Rows, inner size and columns of a matrix product."""


@contextlib.contextmanager
def shown_on(status: StatusLine, name: str) -> Iterator[None]:
    """Shows what is logged within, as that of benchmark `name`."""
    handler = logging.Handler()
    handler.emit = lambda record: status.show(f"bench {name}: {record.getMessage()}")
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOG.setLevel(logging.WARNING)
        LOG.removeHandler(handler)


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """What is timed; `prepare`, which is not, makes what each call of `run` takes."""

    run: Callable[..., object]
    prepare: Callable[[], Any] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Times:
    """Seconds of one piece of work, one entry a round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles over the median; 0 for a single round."""
        if len(self.seconds) < 2:
            return 0.0
        first, middle, third = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (third - first) / 2 / middle

    def over(self, other: Times) -> Times:
        """The ratios to `other` within each round."""
        pairs = zip(self.seconds, other.seconds, strict=True)
        return Times(tuple(mine / theirs for mine, theirs in pairs))


def time_in_turn(works: Mapping[str, Work], *, rounds: int, warmups: int = 1) -> dict[str, Times]:
    """Does all works round after round, so that what drifts in the machine drifts for all.

    Every other round goes backwards. Seconds are of one call.
    """
    calls = dict[str, int]()
    for name, work in works.items():
        LOG.info("warming up %s", name)
        *_, last = (_time(work, 1) for _ in range(max(1, warmups)))
        calls[name] = max(1, math.ceil(LEAST_SECONDS / max(last, 1e-9)))
    seconds: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    for number in range(1, rounds + 1):
        LOG.info("timing %s: round %d of %d", ", ".join(works), number, rounds)
        for name in names:
            seconds[name].append(_time(works[name], calls[name]))
        names.reverse()
    return {name: Times(tuple(values)) for name, values in seconds.items()}


def _time(work: Work, calls: int) -> float:
    """Seconds of a call; calls that need no preparation are timed together."""
    total = 0.0
    for _ in range(calls if work.prepare else 1):
        arguments = () if work.prepare is None else (work.prepare(),)
        _finish()
        began = time.perf_counter()
        for _ in range(1 if work.prepare else calls):
            work.run(*arguments)
        _finish()
        total += time.perf_counter() - began
    return total / calls


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


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
    source = torch.ones(COPY_NBYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = time_in_turn({"copy": Work(lambda: target.copy_(source))}, rounds=MACHINE_ROUNDS)["copy"]
    return Machine(
        float32_gflops=matmul_gflops(square, torch.float32, device),
        bfloat16_gflops=matmul_gflops(square, torch.bfloat16, device),
        bandwidth_gbytes=2 * COPY_NBYTES / copy.median / 1e9,
    )


def matmul_gflops(shapes: Mapping[Shape, int], dtype: torch.dtype, device: torch.device) -> float:
    """GFLOP/s of products that follow each other; every shape occurs as often as it maps to.

    Each is taken by the fastest of the libraries that torch offers for it.
    """
    flops, seconds = 0.0, 0.0
    for shape, count in shapes.items():
        rows, inner, columns = shape
        times = time_in_turn(_product_works(shape, dtype, device), rounds=MACHINE_ROUNDS)
        seconds += count * min(each.median for each in times.values())
        flops += count * 2.0 * rows * inner * columns
    return flops / seconds / 1e9


def _product_works(shape: Shape, dtype: torch.dtype, device: torch.device) -> dict[str, Work]:
    rows, inner, columns = shape
    left = torch.ones(rows, inner, dtype=dtype, device=device)
    right = torch.ones(columns, inner, dtype=dtype, device=device)
    by_linear = torch.no_grad()(lambda: linear(left, right))
    return {"matmul": Work(lambda: left @ right.T), "linear": Work(by_linear)}


class Pause(NamedTuple):
    """A pause of a run: the process's resident memory, and what the run yielded there."""

    nbytes: int
    value: int


def measure_extra_nbytes(module: str, function: str, *arguments: str) -> int | None:
    """The peak that a call of the work adds to what is resident before it, after a first one.

    `function` of `module` makes the work from `arguments`; the median of MEMORY_CALLS calls. On
    CUDA this counts what torch allocates. None where the system does not tell (it must be Linux).
    """
    extra = _run_fresh("report_extra", module, function, *arguments)
    return None if extra is None else int(extra)


def measure_paused(module: str, function: str, *arguments: str) -> list[Pause] | None:
    """Resident memory at every pause of a run: `function` makes an iterator from `arguments`.

    None where the system does not tell (it must be Linux).
    """
    pauses = _run_fresh("report_paused", module, function, *arguments)
    return None if pauses is None else [Pause(*pause) for pause in pauses]


def report_extra(module: str, function: str, *arguments: str) -> int:
    """Runs in the fresh process."""
    work: Callable[[], object] = getattr(importlib.import_module(module), function)(*arguments)
    measure = _extra_on_cuda if torch.cuda.is_available() else _extra_on_cpu
    work()
    return int(statistics.median(measure(work) for _ in range(MEMORY_CALLS)))


def report_paused(module: str, function: str, *arguments: str) -> list[tuple[int, int]]:
    """Runs in the fresh process."""
    pauses = getattr(importlib.import_module(module), function)(*arguments)
    return [(_resident("VmRSS"), value) for value in pauses]


def _run_fresh(reporter: str, *arguments: str) -> Any:
    """What a reporter returns in a fresh process, None where the system does not tell."""
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
