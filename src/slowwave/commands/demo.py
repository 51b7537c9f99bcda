"""What a user sees first."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from slowwave.commands.arguments import parse, require_folder
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


def run(arguments: list[str]) -> None:
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
