"""What a run leaves on disk, and all that figures and tables are drawn from.

config.json, environment.json, metrics.jsonl, summary.json, and checkpoint/ to resume from.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import torch

from slowwave.storage.files import read_json, write_atomically, write_json


class RunFolder:
    """The files of one training run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def checkpoint(self) -> Path:
        """Folder of the newest checkpoint."""
        return self.path / "checkpoint"

    def begin(self, config: dict[str, Any], *, seed: int) -> None:
        """Writes the resolved config and the environment; the metrics start empty."""
        write_json(self.path / "config.json", config)
        write_json(self.path / "environment.json", describe_environment(seed))
        write_atomically(self.path / "metrics.jsonl", b"")

    def check_config(self, config: dict[str, Any]) -> None:
        """Raises ValueError unless the folder was made by this very config."""
        recorded = read_json(self.path / "config.json")
        for section in sorted(recorded.keys() | config.keys()):
            if recorded.get(section) != config.get(section):
                raise ValueError(
                    f"{self.path}: holds a run whose {section} is {recorded.get(section)!r}, not "
                    f"{config.get(section)!r}; name another folder with --out"
                )

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Adds one JSON line."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All lines written so far."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            raise ValueError(f"{path}: no such file; name the folder of a run")
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def drop_metrics_after(self, step: int) -> None:
        """Forgets lines of steps that a resumed run will take again."""
        kept = [line for line in self.metrics() if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_atomically(self.path / "metrics.jsonl", text.encode())

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes the result of a finished run."""
        write_json(self.path / "summary.json", summary)

    def summary(self) -> dict[str, Any]:
        """The result of a finished run."""
        return read_json(self.path / "summary.json")

    @property
    def is_finished(self) -> bool:
        """Whether a summary was written."""
        return (self.path / "summary.json").exists()


def describe_environment(seed: int) -> dict[str, Any]:
    """Commit, versions, hardware and threads: what one needs to rerun and to compare."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    status = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.machine(),
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": device,
        "seed": seed,
        "command": ["slowwave", *sys.argv[1:]],
    }


def _git(*arguments: str) -> str | None:
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, check=True
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
