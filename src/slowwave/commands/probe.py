"""What each pass leaves in the fast weights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import tyro

from slowwave.commands.arguments import parse
from slowwave.lab.memory_plots import PROBE_EXAMPLES
from slowwave.status_line import StatusLine


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """Probe what the fast weights of a run of rule110 hold after each pass of a sleep.

    Linear probes look for the cells of slept states, 0 to t steps later. Writes probe.json,
    probe.md and probe.png into the run's folder.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of a run: config.json and checkpoint/."""
    examples: int = PROBE_EXAMPLES
    """Training examples of the probes; a quarter as many choose their penalties and score them."""
    json: bool = False
    """Print what was found as one JSON document on stdout."""


def run(arguments: list[str]) -> None:
    """slowwave probe RUN [--examples 4096] [--json]"""
    options = parse(ProbeOptions, arguments, prog="slowwave probe")
    with StatusLine() as status:
        status.show(f"loading {options.run}")
        from slowwave.lab.memory_plots import draw_probes, probe_table
        from slowwave.lab.probe import probe_run

        found = probe_run(options.run, options.run, examples=options.examples, tell=status.show)
    written = draw_probes(options.run, options.run)
    if options.json:
        print(json.dumps(found))
    else:
        print(probe_table(found))
        for path in written:
            print(path)
