"""Commands for runs: train by a recipe, score, export a model to talk to."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

from slowwave.commands.arguments import parse, require_folder, split_setting
from slowwave.experiment import ExperimentConfig, load_experiment, look_up
from slowwave.status_line import StatusLine
from slowwave.training.run_folder import count_saved_steps
from slowwave.wording import find_close

Run = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]


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


def train(arguments: list[str]) -> None:
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
        default=TrainOptions(experiment=load_experiment(recipe, _find_consolidator(rest))),
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


def _find_consolidator(arguments: list[str]) -> dict[str, Any]:
    """The consolidator that flags choose, whose settings are flags too, and N, which must suit it.

    `--sleep.consolidator ridge` is taken out of the arguments.
    """
    chosen: dict[str, Any] = {}
    for flag in ("--sleep.consolidator", "--sleep.consolidator.kind"):
        if flag in arguments[:-1]:
            at = arguments.index(flag)
            chosen["sleep.consolidator"] = arguments[at + 1]
            del arguments[at : at + 2]
    if chosen and "--sleep.passes" in arguments[:-1]:
        passes = arguments[arguments.index("--sleep.passes") + 1]
        if passes.isdecimal():
            chosen["sleep.passes"] = int(passes)
    return chosen


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Score a run (or a shipped checkpoint) on its test split."""

    run: Run
    """Folder of a run: config.json and checkpoint/."""
    passes: tuple[int, ...] = ()
    """Numbers of passes to sleep with; the trained one if not given."""
    examples: int = 1024
    """Test examples."""
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK.FIELD=VALUE ...")] = ()
    """Changes to the task, such as steps=10 or questions=9, to score beyond what was trained; or to
    how it sleeps, such as sleep.consolidator=evict with sleep.passes=1."""
    json: bool = False
    """Print the records as one JSON document on stdout."""


def evaluate(arguments: list[str]) -> None:
    """slowwave eval RUN [--passes 1 2 4] [--examples 1024] [--json]"""
    options = parse(EvalOptions, arguments, prog="slowwave eval")
    if any(count < 1 for count in options.passes):
        raise ValueError(f"--passes has {min(options.passes)}; use 1 or more for each")
    if options.examples < 1:
        raise ValueError(f"--examples is {options.examples}; use 1 or more")
    with StatusLine() as status:
        status.show(f"loading {options.run}")
        from slowwave.evaluation.tables import RunView
        from slowwave.experiment import load_run, retask, score

        config, model, task = load_run(options.run)
        trained_passes = config.sleep.passes
        if options.set:
            config, task = retask(config, dict(split_setting(text) for text in options.set))
        records = score(
            model,
            task,
            config,
            passes=options.passes or (config.sleep.passes,),
            examples=options.examples,
            on_scored=RunView(status).scored,
        )
    result = {
        "name": config.name,
        "trained_passes": trained_passes,
        "group_name": task.group_name,
        "bytes_per_token": task.bytes_per_token,
        "floors": task.floors(),
        "test": [record.to_dict() for record in records],
    }
    if options.json:
        print(json.dumps(result))
    else:
        from slowwave.evaluation.tables import print_summary

        print_summary(result)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Make a model to talk to from a run on conversation or text."""

    run: Run
    """Folder of a run: config.json and checkpoint/."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Folder that receives model.safetensors, config.json and tokenizer.json; not there yet."""


def export(arguments: list[str]) -> None:
    """slowwave export RUN OUT"""
    options = parse(ExportOptions, arguments, prog="slowwave export")
    from slowwave.experiment import export_run

    export_run(options.run, options.out)
    print(options.out)


def _train(config: ExperimentConfig, out: Path, status: StatusLine) -> dict[str, Any]:
    """Trains and returns the summary.

    Raises KeyboardInterrupt with a sentence about what is saved if training was interrupted.
    """
    status.show(f"loading what the run in {out} takes")
    from slowwave.evaluation.tables import RunView
    from slowwave.experiment import run_training
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
    """Raises ValueError if a recipe is missing, with guesses which one was meant."""
    path = Path(recipe)
    if path.is_file():
        return
    found = [*path.parent.glob("*.toml"), *Path("recipes").glob("*.toml")]
    by_name = {file.stem: str(file) for file in found}
    close = [by_name[name] for name in find_close(path.stem, by_name)]
    mend = f"did you mean {' or '.join(close)}?" if close else "name a TOML file, a recipe"
    raise ValueError(f"{recipe}: {'is a folder' if path.is_dir() else 'no such file'}; {mend}")
