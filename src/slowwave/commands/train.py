"""Training by a recipe."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

from slowwave.commands.arguments import parse, require_folder
from slowwave.status_line import StatusLine
from slowwave.training.experiment import ExperimentConfig, load_experiment, look_up
from slowwave.training.process import RunView
from slowwave.training.run_folder import count_saved_steps
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

    with StatusLine() as status:
        standing = look_up(config, out)
        if standing.sentence:
            status.say(standing.sentence)
        summary = standing.summary or _train(config, out, status)
    if options.json:
        print(json.dumps(summary))
    else:
        from slowwave.evaluation.tables import print_summary

        print_summary(summary)
        print(f"run folder: {out}", file=sys.stderr)


def _train(config: ExperimentConfig, out: Path, status: StatusLine) -> dict[str, Any]:
    """The summary; raises KeyboardInterrupt, which says what is saved, if it was interrupted."""
    status.show(f"loading what the run in {out} takes")
    from slowwave.training.experiment import run_training
    from slowwave.training.process import keep_freed_memory

    keep_freed_memory()
    view = RunView(status)
    try:
        summary = run_training(config, out, report=view.step, on_scored=view.scored, say=status.say)
    except KeyboardInterrupt:
        summary = None
    if summary is None:
        steps = f"{count_saved_steps(out):,} of {config.train.steps:,} steps"
        raise KeyboardInterrupt(
            f"interrupted; {steps} are saved in {out}, and the same command goes on from there"
        )
    return summary


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
