"""A model to talk to, from a trained run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from slowwave.commands.arguments import parse


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Make a model to talk to from a run on conversation or text."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of a run: config.json and checkpoint/."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Folder that receives model.safetensors, config.json and tokenizer.json; not there yet."""


def run(arguments: list[str]) -> None:
    """slowwave export RUN OUT"""
    options = parse(ExportOptions, arguments, prog="slowwave export")
    from slowwave.training.experiment import export_run

    export_run(options.run, options.out)
    print(options.out)
