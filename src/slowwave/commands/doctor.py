"""What this machine offers."""

from __future__ import annotations

import dataclasses

from slowwave.commands.arguments import parse


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Say what this machine offers slowwave, and what is missing."""

    json: bool = False
    """Print one JSON document on stdout."""


def run(arguments: list[str]) -> None:
    """slowwave doctor [--json]"""
    options = parse(DoctorOptions, arguments, prog="slowwave doctor")
    from slowwave.doctor import run_doctor

    run_doctor(as_json=options.json)
