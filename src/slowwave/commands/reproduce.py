"""Figures of the paper."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import tyro

from slowwave.commands.arguments import parse
from slowwave.status_line import StatusLine


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


def run(arguments: list[str]) -> None:
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
