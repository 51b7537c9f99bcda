"""What a run leaves on disk, and all that figures and tables are drawn from.

config.json, environment.json, metrics.jsonl, summary.json, and checkpoint/ to resume from.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slowwave.storage.files import read_json, write_atomically, write_json


class RunFolder:
    """The files of one training run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def checkpoint(self) -> Path:
        """Folder of the newest checkpoint."""
        return self.path / "checkpoint"

    def begin(self, config: dict[str, Any], environment: dict[str, Any]) -> None:
        """Writes the resolved config and the environment; the metrics start empty."""
        write_json(self.path / "config.json", config)
        write_json(self._environment, environment)
        write_atomically(self.path / "metrics.jsonl", b"")

    def note_resumption(self, step: int, environment: dict[str, Any]) -> None:
        """Adds to the environment what is another from `step` on, under "resumed"."""
        recorded = read_json(self._environment) if self._environment.exists() else {}
        resumed = recorded.get("resumed", [])
        known = recorded | {key: value for entry in resumed for key, value in entry.items()}
        changed = {key: value for key, value in environment.items() if known.get(key) != value}
        if changed:
            resumed = [*resumed, {"step": step, **changed}]
            write_json(self._environment, recorded | {"resumed": resumed})

    @property
    def _environment(self) -> Path:
        return self.path / "environment.json"

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
