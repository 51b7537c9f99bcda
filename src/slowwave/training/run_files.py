"""The JSON files of a run, checked as they are read; torch-free."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from slowwave.config import validate
from slowwave.sleep.config import MOST_PASSES
from slowwave.storage.files import read_plain
from slowwave.storage.json_files import parse_lines, read_json

Kind = TypeVar("Kind")

RESTORE = "restore the file"

# So large that nothing is larger, so small that sums and means stay finite.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1e100, le=1e100)]
Positive = Annotated[float, Field(strict=True, ge=1e-6, le=1e6)]
Count = Annotated[int, Field(strict=True, ge=0, le=2**200)]
Passes = Annotated[int, Field(strict=True, ge=1, le=MOST_PASSES)]


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
class Environment:
    """What environment.json is looked into for: where a run was resumed."""

    resumed: list[dict[str, Any]] = dataclasses.field(default_factory=list)


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
    bytes_per_token: Positive | None = None

    def __post_init__(self) -> None:
        if self.trained_passes not in {record.passes for record in self.test}:
            raise ValueError(f"test lacks N = {self.trained_passes}; {RESTORE}")


Scores = list[list[list[Number]]]
"""By pass, windows since and steps."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cells:
    """Of a probe: of the first cell, and the mean of all."""

    first: Scores
    all: Scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class Floors:
    """Of a probe, by steps."""

    first: list[Number]
    all: list[Number]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    """What probe.json holds, as `probe_fast_weights` says."""

    passes: Passes
    steps: Count
    examples: dict[Literal["train", "validation", "test"], Count]
    fast_weights: Count
    trained: Cells
    untrained: Cells
    floor: Floors
    answers: Annotated[list[Number], Field(min_length=1)]

    def __post_init__(self) -> None:
        size = (self.passes, len(self.answers), self.steps + 1)
        for name in ("trained", "untrained"):
            cells: Cells = getattr(self, name)
            for scores in (cells.first, cells.all):
                if not _is_shaped(scores, size):
                    raise ValueError(f"{name} has no scores of the shape {size}; {RESTORE}")
        if not all(_is_shaped(floor, size[2:]) for floor in (self.floor.first, self.floor.all)):
            raise ValueError(f"floor has not {size[2]} numbers; {RESTORE}")
        if len(self.examples) != 3:
            raise ValueError(f"examples lacks a split; {RESTORE}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadEvent:
    """Of stream.json: a token was read."""

    kind: Literal["read"]
    tokens_seen: Count
    window_fill: Count
    cache_nbytes: Count
    fast_weights_nbytes: Count


@dataclasses.dataclass(frozen=True, kw_only=True)
class Write:
    """Of a pass into a layer."""

    layer: Count
    change: Number
    norm: Number


@dataclasses.dataclass(frozen=True, kw_only=True)
class SleepEvent:
    """Of stream.json: the model slept."""

    kind: Literal["sleep"]
    tokens_seen: Count
    passes: Passes
    milliseconds: Number
    cache_nbytes_after: Count
    fast_weights_nbytes_after: Count
    writes: Annotated[list[list[Write]], Field(min_length=1)]

    def __post_init__(self) -> None:
        if len(self.writes) != self.passes:
            raise ValueError(f"writes has not {self.passes} passes; {RESTORE}")


Event = Annotated[ReadEvent | SleepEvent, Field(discriminator="kind")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sleep:
    """How a stream slept."""

    passes: Passes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
    """What stream.json holds."""

    sleep: Sleep
    layers: list[str]
    events: Annotated[list[Event], Field(min_length=1)]

    def __post_init__(self) -> None:
        if self.events[0].kind != "read":
            raise ValueError(f"events begin with a sleep; {RESTORE}")
        sleeps = [event for event in self.events if event.kind == "sleep"]
        if any(event.passes != self.sleep.passes for event in sleeps):
            raise ValueError(f"events has a sleep of other passes than sleep; {RESTORE}")
        passes = [writes for event in sleeps for writes in event.writes]
        if len({tuple(write.layer for write in writes) for writes in passes}) > 1:
            raise ValueError(f"events has passes that write into other layers; {RESTORE}")
        reads = [event for event in self.events if event.kind == "read"]
        if self.events[-1].tokens_seen == 0:
            raise ValueError(f"events end with no token seen; {RESTORE}")
        if not any(event.window_fill for event in reads):
            raise ValueError(f"events has no read that fills the window; {RESTORE}")
        if not any(event.cache_nbytes or event.fast_weights_nbytes for event in reads):
            raise ValueError(f"events has no read that takes a byte; {RESTORE}")


def _is_shaped(values: Any, shape: tuple[int, ...]) -> bool:
    """Whether lists are nested so."""
    if not shape:
        return True
    return len(values) == shape[0] and all(_is_shaped(part, shape[1:]) for part in values)


def read_summary(path: Path) -> dict[str, Any]:
    """summary.json of a finished run; raises ValueError naming the file and what is wrong."""
    summary = read_json(path)
    _check(Summary, summary, str(path))
    return summary


def read_environment(path: Path) -> dict[str, Any]:
    """environment.json; raises ValueError as above."""
    environment = read_json(path)
    _check(Environment, environment, str(path))
    return environment


def read_probe(path: Path) -> dict[str, Any]:
    """probe.json; raises ValueError as above."""
    probe = read_json(path)
    _check(Probe, probe, str(path))
    return probe


def read_stream(path: Path) -> dict[str, Any]:
    """stream.json; raises ValueError as above."""
    stream = read_json(path)
    _check(Stream, stream, str(path))
    return stream


def read_metrics(path: Path, *, drop_cut: bool = False) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, none if there is no such file; raises ValueError as above.

    drop_cut: see `parse_lines`.
    """
    try:
        lines = parse_lines(read_plain(path), path, drop_cut=drop_cut)
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
