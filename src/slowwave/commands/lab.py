"""Commands for a checkout of slowwave: the demo, figures, probes and benchmarks."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Annotated

import tyro

from slowwave.commands.arguments import parse, require_folder
from slowwave.commands.keep import bench_keep
from slowwave.commands.words import bench_words
from slowwave.lab.memory_plots import PROBE_EXAMPLES
from slowwave.status_line import StatusLine


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Stream an unseen graph through the shipped models: windows, sleeps, cache, answers."""

    checkpoints: Path = Path("checkpoints/depo-mini")
    """Folder with one trained model for each number of passes."""
    seed: int | None = None
    """Which unseen graph; a fresh one each time if not given."""
    graphs: int = 64
    """Unseen graphs behind the table of accuracy by hop."""
    out: Path = Path("runs/demo")
    """Folder that receives demo.png and the measurements, demo.json and stream.json."""
    json: bool = False
    """Print what was measured as one JSON document on stdout."""


def demo(arguments: list[str]) -> None:
    """slowwave demo [--seed 7] [--out runs/demo]"""
    options = parse(DemoOptions, arguments, prog="slowwave demo")
    require_folder("--out", options.out)
    with StatusLine() as status:
        status.show("loading the models")
        from slowwave.lab.demo import run_demo

    run_demo(
        options.checkpoints,
        out=options.out,
        seed=options.seed,
        graphs=options.graphs,
        as_json=options.json,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReproduceOptions:
    """Train what a figure lacks, skip what is recorded, then rebuild its tables and figures.

    Call it in a checkout of slowwave: recipes/figures says what to run, results/ holds the runs.
    """

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")] = ""
    """Figure to make; all are listed if not given."""
    scale: str = "mini"
    """mini (two CPU cores) or paper (its size)."""
    seeds: int = 3
    """Seeds of every run; some are worth fewer."""
    jobs: int = 1
    """Runs to train at the same time."""
    dry_run: bool = False
    """Train nothing: list every run with its state, its cost and its command."""
    redraw: bool = False
    """Train nothing: rebuild tables and figures, of all figures without NAME."""


def reproduce(arguments: list[str]) -> None:
    """slowwave reproduce [NAME --scale mini --seeds 3 --jobs 2 --dry-run]"""
    options = parse(ReproduceOptions, arguments, prog="slowwave reproduce")
    for field in ("seeds", "jobs"):
        if getattr(options, field) < 1:
            raise ValueError(f"--{field} is {getattr(options, field)}; use 1 or more")
    with StatusLine() as status:
        status.show("loading what draws and trains")
        from slowwave.lab.reproduction.reproduce import list_all, make, rebuild, show_runs

    if options.dry_run:
        show_runs(options.name, options.scale, seeds=options.seeds)
    elif options.redraw:
        rebuild(options.name, options.scale, seeds=options.seeds)
    elif options.name:
        make(options.name, options.scale, seeds=options.seeds, jobs=options.jobs)
    else:
        list_all(seeds=options.seeds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlotOptions:
    """Draw the figures of all runs below a folder, from their files alone."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """Folder of runs, such as results/depo-mini, or a single run."""
    out: Path | None = None
    """Where figures and table.md go; the folder itself if not given."""


def plot(arguments: list[str]) -> None:
    """slowwave plot results/depo-mini [--out DIR]"""
    options = parse(PlotOptions, arguments, prog="slowwave plot")
    require_folder("--out", options.out)
    from slowwave.lab.plots import draw_all

    for path in draw_all(options.folder, options.out or options.folder):
        print(path)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """Probe what the fast weights of a run of rule110 hold after each pass of a sleep.

    Linear probes look for the cells of slept states, 0 to t steps later. Writes probe.json,
    probe.md and probe.png into the run's folder.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of a run: config.json and checkpoint/."""
    examples: int = PROBE_EXAMPLES
    """Training examples of the probes; a quarter as many choose their penalties and score them."""
    json: bool = False
    """Print what was found as one JSON document on stdout."""


def probe(arguments: list[str]) -> None:
    """slowwave probe RUN [--examples 4096] [--json]"""
    options = parse(ProbeOptions, arguments, prog="slowwave probe")
    with StatusLine() as status:
        status.show(f"loading {options.run}")
        from slowwave.lab.memory_plots import draw_probes, probe_table
        from slowwave.lab.probe import probe_run

        found = probe_run(options.run, options.run, examples=options.examples, tell=status.show)
    written = draw_probes(options.run, options.run)
    if options.json:
        print(json.dumps(found))
    else:
        print(probe_table(found))
        for path in written:
            print(path)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Measure speed and memory, each beside a peer and beside what this machine can do."""

    what: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="WHAT")]
    """op (the delta rule), read (long streams), wake (a token after 1 k to 1 M tokens), sleep,
    train, store (keeping a session), kills (a thousand, some minutes), live (1 M tokens through one
    session of the shipped model), serve (a hundred sessions at once, half an hour), large (1.4 B
    weights, needs a GPU), or all of them; keep MODEL and words, which have options of their own,
    compare what memories keep, and what notes save."""
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


def bench(arguments: list[str]) -> None:
    """slowwave bench {op,read,wake,sleep,train,store,kills,live,serve,large,all} [--out DIR]

    `slowwave bench keep MODEL` compares what memories keep, `slowwave bench words` what notes save.
    """
    others = {"keep": bench_keep, "words": bench_words}
    if arguments and arguments[0] in others:
        others[arguments[0]](arguments[1:])
        return
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
