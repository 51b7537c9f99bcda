"""Figures of runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from slowwave.commands.arguments import parse, require_folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlotOptions:
    """Draw the figures of all runs below a folder, from their files alone."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """Folder of runs, such as results/depo-mini, or a single run."""
    out: Path | None = None
    """Where figures and table.md go; the folder itself if not given."""


def run(arguments: list[str]) -> None:
    """slowwave plot results/depo-mini [--out DIR]"""
    options = parse(PlotOptions, arguments, prog="slowwave plot")
    require_folder("--out", options.out)
    from slowwave.lab.plots import draw_all

    for path in draw_all(options.folder, options.out or options.folder):
        print(path)
