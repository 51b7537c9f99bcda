"""Training by a recipe."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import tyro

from slowwave.commands.arguments import parse
from slowwave.commands.errors import INTERRUPTED, USER_ERROR, plain_warnings
from slowwave.experiment import ExperimentConfig, load_experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train by a recipe; run again to continue an interrupted run.

    Every field of the recipe is a flag: --sleep.passes 4 --train.seed 1 --train.steps 2000.
    """

    experiment: Annotated[ExperimentConfig, tyro.conf.arg(name="")]
    out: Path | None = None
    """Run folder; runs/<recipe>/n<passes>-seed<seed> if not given."""
    json: bool = False
    """Print the summary as one JSON document on stdout."""


def run(arguments: list[str]) -> None:
    """slowwave train RECIPE [--sleep.passes 4 ...] [--out DIR] [--json]"""
    if not arguments or arguments[0].startswith("-"):
        print("usage: slowwave train RECIPE [options]; slowwave train RECIPE --help lists them")
        sys.exit(0 if {"-h", "--help"} & set(arguments) else USER_ERROR)
    recipe, *rest = arguments
    options = parse(
        tyro.conf.AvoidSubcommands[TrainOptions],
        rest,
        prog=f"slowwave train {recipe}",
        default=TrainOptions(experiment=load_experiment(recipe)),
    )
    config = options.experiment
    name = f"n{config.sleep.passes}-seed{config.train.seed}"
    out = options.out or Path("runs") / config.name / name

    from slowwave.experiment import run_training
    from slowwave.training.allocator import keep_freed_memory
    from slowwave.training.progress_line import ProgressLine

    keep_freed_memory()
    with plain_warnings():
        summary = run_training(config, out, report=ProgressLine(config.train.log_every))
    if summary is None:
        print(f"\ninterrupted; the same command continues the run in {out}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    if options.json:
        print(json.dumps(summary))
    else:
        from slowwave.evaluation.tables import print_summary

        print(file=sys.stderr)
        print_summary(summary)
        print(f"run folder: {out}", file=sys.stderr)
