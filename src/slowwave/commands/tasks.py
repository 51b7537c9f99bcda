"""Tasks and their examples."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from slowwave.commands.arguments import parse, split_setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class TasksOptions:
    """List the tasks, or show examples of one."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")] = ""
    """Task to show; all are listed if not given."""
    show: int = 1
    """Number of examples."""
    split: str = "train"
    """train, validation or test."""
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FIELD=VALUE ...")] = ()
    """Changes to the task's default config, such as grammar=official or steps=4."""
    rows: Path | None = None
    """JSON lines of the public GSM-Infinite, to be read and solved instead of examples of ours."""
    json: bool = False
    """Print one JSON document on stdout."""


def run(arguments: list[str]) -> None:
    """slowwave tasks [NAME --show 3]"""
    options = parse(TasksOptions, arguments, prog="slowwave tasks")
    from slowwave.evaluation.tables import print_official_rows, print_task_examples, print_tasks

    if options.rows is not None:
        if options.name != "gsm_infinite":
            raise ValueError(f"--rows needs gsm_infinite, not {options.name!r}; name that task")
        print_official_rows(options.rows, as_json=options.json)
        return
    if not options.name:
        print_tasks(as_json=options.json)
        return
    if options.show < 1:
        raise ValueError(f"--show is {options.show}; use 1 or more")
    settings = dict(split_setting(text) for text in options.set)
    print_task_examples(options.name, settings, options.split, options.show, options.json)
