"""Scoring a run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import tyro

from slowwave.commands.arguments import parse, split_setting
from slowwave.status_line import StatusLine
from slowwave.training.process import RunView


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Score a run (or a shipped checkpoint) on its test split."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of a run: config.json and checkpoint/."""
    passes: tuple[int, ...] = ()
    """Numbers of passes to sleep with; the trained one if not given."""
    examples: int = 1024
    """Test examples."""
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK.FIELD=VALUE ...")] = ()
    """Changes to the task, such as steps=10 or questions=9, to score beyond what was trained."""
    json: bool = False
    """Print the records as one JSON document on stdout."""


def run(arguments: list[str]) -> None:
    """slowwave eval RUN [--passes 1 2 4] [--examples 1024] [--json]"""
    options = parse(EvalOptions, arguments, prog="slowwave eval")
    if any(count < 1 for count in options.passes):
        raise ValueError(f"--passes has {min(options.passes)}; use 1 or more for each")
    if options.examples < 1:
        raise ValueError(f"--examples is {options.examples}; use 1 or more")
    with StatusLine() as status:
        status.show(f"loading {options.run}")
        from slowwave.training.experiment import load_run, retask, score

        config, model, task = load_run(options.run)
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
        "trained_passes": config.sleep.passes,
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
