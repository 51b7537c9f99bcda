"""The JSON files of a run, checked as they are read; torch-free."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field

from slowwave.config import validate
from slowwave.storage.files import read_json
from slowwave.storage.json_lines import parse_lines

Kind = TypeVar("Kind")

RESTORE = "restore the file"

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=0)]


@dataclasses.dataclass(frozen=True)
class Score:
    """Of a record."""

    exact: Number
    sampled: Number
    token_accuracy: Number
    loss: Number
    answers: Count


@dataclasses.dataclass(frozen=True)
class Record:
    """What one model scored on one split."""

    split: str
    passes: Count
    overall: Score
    groups: dict[str, Score]
    flops: Count | None = None  # older records have none


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counters:
    """How far a run has come."""

    step: Count
    tokens: Count
    flops: Count
    seconds: Number


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line(Counters):
    """Of metrics.jsonl."""

    loss: Number | None = None
    gradient_norm: Number | None = None
    evaluation: Record | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary(Counters):
    """Of a finished run."""

    name: str
    parameters: Count
    trained_passes: Count
    group_name: str
    floors: dict[str, Number]
    test: Annotated[list[Record], Field(min_length=1)]
    bytes_per_token: Number | None = None

    def __post_init__(self) -> None:
        if self.trained_passes not in {record.passes for record in self.test}:
            raise ValueError(f"test lacks N = {self.trained_passes}; {RESTORE}")


def read_summary(path: Path) -> dict[str, Any]:
    """summary.json of a finished run; raises ValueError naming the file and what is wrong."""
    summary = read_json(path)
    _check(Summary, summary, str(path))
    return summary


def read_metrics(path: Path, *, drop_cut: bool = False) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, none if there is no such file; raises ValueError as above.

    drop_cut: see `parse_lines`.
    """
    try:
        lines = parse_lines(path.read_bytes(), path, drop_cut=drop_cut)
    except FileNotFoundError:
        return []
    for number, line in enumerate(lines, 1):
        _check(Line, line, f"{path}: line {number}")
    return lines


def read_counters(path: Path) -> dict[str, Any]:
    """progress.json of a checkpoint; raises ValueError as above."""
    return dataclasses.asdict(_check(Counters, read_json(path), str(path)))


def _check(kind: type[Kind], values: Any, where: str) -> Kind:
    try:
        return validate(kind, values, remedy=RESTORE)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
