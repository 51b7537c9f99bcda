"""Training by a recipe."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import tyro

from slowwave.commands.arguments import parse, require_folder
from slowwave.commands.errors import INTERRUPTED
from slowwave.experiment import ExperimentConfig, load_experiment
from slowwave.wording import find_close


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
    if {"-h", "--help"} & set(arguments[:1]):
        print("usage: slowwave train RECIPE [options]; slowwave train RECIPE --help lists them")
        return
    if not arguments or arguments[0].startswith("-") or not arguments[0]:
        raise ValueError("RECIPE is missing; name one first, such as recipes/depo-mini.toml")
    recipe, *rest = arguments
    _require_file(recipe)
    options = parse(
        tyro.conf.AvoidSubcommands[TrainOptions],
        rest,
        prog=f"slowwave train {recipe}",
        default=TrainOptions(experiment=load_experiment(recipe)),
    )
    config = options.experiment
    name = f"n{config.sleep.passes}-seed{config.train.seed}"
    out = options.out or Path("runs") / config.name / name
    require_folder("--out", out)

    from slowwave.experiment import run_training
    from slowwave.training.allocator import keep_freed_memory
    from slowwave.training.progress_line import ProgressLine

    keep_freed_memory()
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


def _require_file(recipe: str) -> None:
    """Raises ValueError if a recipe is not there, with those that may have been meant."""
    path = Path(recipe)
    if path.is_file():
        return
    found = [*path.parent.glob("*.toml"), *Path("recipes").glob("*.toml")]
    by_name = {file.stem: str(file) for file in found}
    close = [by_name[name] for name in find_close(path.stem, by_name)]
    mend = f"did you mean {' or '.join(close)}?" if close else "name a TOML file, a recipe"
    raise ValueError(f"{recipe}: {'is a folder' if path.is_dir() else 'no such file'}; {mend}")
