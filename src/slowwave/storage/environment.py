"""Where a measurement was made: what one needs to rerun it and to compare."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import torch

from slowwave.ops.gated_rules import fastest_backend

SOURCES = Path(__file__).parent


def describe_environment(seed: int) -> dict[str, Any]:
    """Commit, versions, hardware, threads and the command line."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": is_dirty(SOURCES),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.machine(),
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": device,
        "delta_rule": fastest_backend(torch.device("cuda" if device else "cpu"), torch.float32),
        "seed": seed,
        "command": ["slowwave", *sys.argv[1:]],
    }


def is_dirty(folder: Path) -> bool | None:
    """Whether files of the repository around `folder` differ from its last commit; None if none is.

    What lies under results/ does not count: runs write it, and nothing that is measured reads it.
    """
    paths = [":(top)", ":(top,exclude)results"]
    status = _git("status", "--porcelain", "--untracked-files=no", "--", *paths, folder=folder)
    return None if status is None else bool(status)


def _git(*arguments: str, folder: Path = SOURCES) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
