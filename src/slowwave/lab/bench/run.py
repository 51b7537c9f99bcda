"""Runs benchmarks by name, prints them, and writes what was measured."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from slowwave.console import PlainConsole
from slowwave.lab.bench.kills import run_kills
from slowwave.lab.bench.measure import Machine, measure_machine, shown_on
from slowwave.lab.bench.models import load_native, peer_versions
from slowwave.lab.bench.op import OpOptions, run_op
from slowwave.lab.bench.read import run_read
from slowwave.lab.bench.report import Section, draw_benchmarks, section_table
from slowwave.lab.bench.serve import run_serve
from slowwave.lab.bench.session import run_live, run_store
from slowwave.lab.bench.sleep_wake import run_sleep, run_wake
from slowwave.lab.bench.train import run_large, run_train
from slowwave.status_line import StatusLine
from slowwave.storage.environment import describe_environment
from slowwave.storage.json_files import write_json
from slowwave.wording import describe_unknown

Measure = Callable[[torch.device, Machine], list[Section]]

BENCHMARKS: dict[str, Measure] = {
    "op": run_op,
    "read": run_read,
    "wake": run_wake,
    "sleep": run_sleep,
    "train": run_train,
    "store": run_store,
    "kills": run_kills,
    "live": run_live,
    "serve": run_serve,
    "large": run_large,
}
NEEDS_GPU = ("large",)


def run_benchmarks(
    what: str, options: OpOptions, *, out: Path | None, as_json: bool, seconds: float | None = None
) -> None:
    """Measures `what`, or "all"; writes NAME.json and bench.png into `out` if given.

    seconds: of the load on a server. Raises ValueError on a benchmark that is not known or cannot
    run here.
    """
    if what not in (*BENCHMARKS, "all"):
        raise ValueError(describe_unknown("benchmark", what, [*BENCHMARKS, "all"]))
    if options != OpOptions() and what != "op":
        raise ValueError(f"--shape and --workers choose among delta rules, not for bench {what}")
    if seconds is not None and what != "serve":
        raise ValueError(f"--seconds is {seconds:g}, which is for bench serve, not for {what}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and (obstacle := load_native()) is not None:
        print(f"without the native delta rule: {obstacle}", file=sys.stderr)
    usable = [name for name in BENCHMARKS if device.type == "cuda" or name not in NEEDS_GPU]
    if what not in (*usable, "all"):
        raise ValueError(
            f"benchmark {what!r} trains 1.4 B weights and needs a GPU; use 'train' here"
        )
    results: list[dict[str, Any]] = []
    for name in usable if what == "all" else (what,):
        measure = BENCHMARKS[name]
        if name == "op":
            measure = functools.partial(run_op, options=options)
        elif name == "serve":
            measure = functools.partial(run_serve, seconds=seconds)
        with StatusLine() as status, shown_on(status, name):
            machine = measure_machine(device)
            sections = measure(device, machine)
        results.append(
            {
                "name": name,
                "machine": dataclasses.asdict(machine),
                "sections": [dataclasses.asdict(section) for section in sections],
                "environment": {**describe_environment(seed=0), "peers": peer_versions()},
            }
        )
        if out is not None:
            write_json(out / f"{name}.json", results[-1])
        if not as_json:
            _print(name, machine, sections)
    if out is not None:
        try:
            draw_benchmarks(out)
        except ValueError as error:  # nothing to draw it of, or with
            print(error, file=sys.stderr)
    if as_json:
        print(json.dumps(results if what == "all" else results[0]))


def _print(name: str, machine: Machine, sections: list[Section]) -> None:
    console = PlainConsole()
    console.print(
        f"{name}: square matrix products {machine.float32_gflops:,.0f} GFLOP/s in float32, "
        f"{machine.bfloat16_gflops:,.0f} in bfloat16; memory {machine.bandwidth_gbytes:,.1f} GB/s"
    )
    for section in sections:
        console.print(section_table(section))
