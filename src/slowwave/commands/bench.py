"""Speed and memory."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Annotated

import tyro

from slowwave.commands.arguments import parse, require_folder
from slowwave.status_line import StatusLine


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Measure speed and memory, each beside a peer and beside what this machine can do."""

    what: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="WHAT")]
    """op (the delta rule), read (long streams), wake (a token after 1 k to 1 M tokens), sleep,
    train, store (keeping a session), kills (a thousand, some minutes), live (1 M tokens through one
    session of the shipped model), serve (a hundred sessions at once, half an hour), large (1.4 B
    weights, needs a GPU), or all."""
    shape: Annotated[tuple[int, ...], tyro.conf.arg(metavar="B T H K V")] = ()
    """Sizes of the only delta rule to measure: rows, tokens, heads, keys, values."""
    workers: tuple[str, ...] = ()
    """Backends and peers of the delta rule, such as native "transformers chunk"; all if none."""
    seconds: float | None = None
    """Of the load in bench serve; 600 if not given."""
    out: Path | None = None
    """Folder for the measurements (WHAT.json) and bench.png; nothing is written if not given."""
    json: bool = False
    """Print one JSON document on stdout."""


def run(arguments: list[str]) -> None:
    """slowwave bench {op,read,wake,sleep,train,store,kills,live,serve,large,all} [--out DIR]"""
    options = parse(BenchOptions, arguments, prog="slowwave bench")
    require_folder("--out", options.out)
    if options.seconds is not None and not 0 < options.seconds < math.inf:
        raise ValueError(f"--seconds is {options.seconds}; use more than 0")
    with StatusLine() as status:
        status.show("loading what is measured")
        from slowwave.lab.bench.op import OpOptions
        from slowwave.lab.bench.run import run_benchmarks

    chosen = OpOptions(shape=options.shape, workers=options.workers)
    run_benchmarks(
        options.what, chosen, out=options.out, as_json=options.json, seconds=options.seconds
    )
