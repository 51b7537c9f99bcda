"""The command that says what this machine offers slowwave, and what is missing."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
from typing import Any

from slowwave.commands.arguments import parse
from slowwave.wording import MODULES, say_how_to_install

OPTIONAL = {
    "matplotlib": "figures",
    "tokenizers": "text in other tokens than bytes",
    "gguf": "models in GGUF files",
    "jinja2": "chat templates of other models",
    "huggingface_hub": "models by their name on the hub",
    "fastapi": "slowwave serve",
    "transformers": "peers of slowwave bench",
    "lm_eval": "scores on other tasks (docs/models.md)",
    "fla": "CUDA kernels",
}
"""Optional modules, and their use."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Say what this machine offers slowwave, and what is missing."""

    json: bool = False
    """Print one JSON document on stdout."""


def run(arguments: list[str]) -> None:
    """slowwave doctor [--json]"""
    options = parse(DoctorOptions, arguments, prog="slowwave doctor")
    found = examine()
    if options.json:
        print(json.dumps(found))
    else:
        _print_table(found)


def examine() -> dict[str, Any]:
    """Versions, hardware, optional parts, the precision and the backend that "auto" picks."""
    import torch

    from slowwave.ops.gated_rules import fastest_backend
    from slowwave.training.precision import choose_precision

    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    return {
        "slowwave": importlib.metadata.version("slowwave"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "training_precision": choose_precision("auto", device),
        "cpp_compiler": shutil.which("g++") or shutil.which("clang++"),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "delta_rule_backend": fastest_backend(device, torch.float32),
        "optional": {name: importlib.util.find_spec(name) is not None for name in OPTIONAL},
    }


def _print_table(found: dict[str, Any]) -> None:
    from rich.table import Table

    from slowwave.console import PlainConsole

    table = Table(show_header=False, box=None)
    for name, value in found.items():
        if name != "optional":
            table.add_row(name, "none" if value is None else str(value))
    for name, present in found["optional"].items():
        missing = f"missing, for {OPTIONAL[name]}; {say_how_to_install(MODULES[name])}"
        table.add_row(name, "installed" if present else missing)
    if found["cpp_compiler"] is None:
        table.add_row("note", "no C++ compiler: train with --train.no-compile on a CPU")
    elif found["delta_rule_backend"] == "chunk" and found["gpu"] is None:
        table.add_row("note", "the first training run or benchmark builds the native delta rule")
    PlainConsole().print(table)
