"""Tests of trained runs with their task changed: which a figure asks for, and what is recorded."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from slowwave.config import flatten, override
from slowwave.evaluation.tables import RunView
from slowwave.experiment import ExperimentConfig
from slowwave.lab.reproduction.figures import FigureConfig, RetestsConfig
from slowwave.lab.reproduction.runs import PlannedRun, fill_name, find_state
from slowwave.lab.run_results import Run, find_runs
from slowwave.status_line import StatusLine
from slowwave.storage.files import write_atomically
from slowwave.storage.json_files import dump_lines, parse_lines

RECORDED = {"changes", "examples", "test"}

RetestState = Literal["recorded", "to do", "checkpoint not here"]


@dataclasses.dataclass(frozen=True, slots=True)
class PlannedRetest:
    """A test that a figure needs of a run. changes: of its task, by field; passes: to sleep with,
    in order, the trained number among them."""

    run: PlannedRun
    name: str
    changes: dict[str, Any]
    passes: tuple[int, ...]
    examples: int

    @property
    def arguments(self) -> list[str]:
        """What follows `slowwave` in the command that shows the same scores."""
        changes = [
            f"{key}={json.dumps(v, separators=(',', ':'))}" for key, v in self.changes.items()
        ]
        passes = map(str, self.passes)
        flags = ["--set", *changes, "--passes", *passes, "--examples", str(self.examples)]
        return ["eval", str(self.run.folder), *flags]


def plan_retests(figure: FigureConfig, runs: Sequence[PlannedRun]) -> list[PlannedRetest]:
    """Every test of every run that no other run starts from, run by run.

    Raises ValueError on a task that its config refuses.
    """
    starts = {run.config.train.start_from for run in runs}
    last = [run for run in runs if str(run.folder) not in starts]
    return [retest for run in last for tests in figure.retests for retest in _expand(tests, run)]


def find_retest_state(retest: PlannedRetest) -> RetestState:
    """Whether a test is recorded, and if not, whether the run can be tested when it is trained."""
    if not _missing_passes(retest):
        return "recorded"
    trained = find_state(retest.run) == "recorded"
    return "checkpoint not here" if trained and not _weights(retest.run).exists() else "to do"


def run_retests(retests: Sequence[PlannedRetest], console: Console) -> None:
    """Tests what is not recorded, and says which runs cannot be tested for want of a checkpoint."""
    from slowwave.experiment import load_run, retask, score

    states = [find_retest_state(retest) for retest in retests]
    say = functools.partial(console.print, soft_wrap=True)
    say(f"{states.count('recorded')} of {len(states)} tests are recorded")
    pairs = zip(retests, states, strict=True)
    missing = [retest for retest, state in pairs if state != "recorded"]
    for run, group in itertools.groupby(missing, key=lambda retest: retest.run):
        tests = list(group)
        if not _weights(run).exists():
            say(
                f"{run.folder}: {len(tests)} tests are left out, as its checkpoint is not here; "
                "delete the folder to train it again"
            )
            continue
        config, model, _ = load_run(run.folder)
        for number, retest in enumerate(tests, 1):
            changed, task = retask(config, retest.changes)
            passes = _missing_passes(retest)
            with StatusLine() as status:
                records = score(
                    model,
                    task,
                    changed,
                    passes=passes,
                    examples=retest.examples,
                    on_scored=RunView(status).scored,
                )
            scored = {"group_name": task.group_name, "floors": task.floors()}
            _record(retest, scored, [record.to_dict() for record in records])
            say(f"{run.folder}: tested with {retest.name} ({number} of {len(tests)})")


def find_retested(retest: PlannedRetest) -> list[Run]:
    """The run as this test scored it, its task that of the test; empty if it is not recorded."""
    if _missing_passes(retest):
        return []
    changed = {f"task.{key}": value for key, value in retest.changes.items()}
    entry = _find_entry(retest)
    return [
        dataclasses.replace(
            run, settings={**run.settings, **changed}, summary={**run.summary, **entry}
        )
        for run in find_runs(retest.run.folder)
    ]


def _expand(tests: RetestsConfig, run: PlannedRun) -> Iterator[PlannedRetest]:
    each = flatten(tests.each)
    passes = tuple(sorted({*tests.passes, run.config.sleep.passes}))
    for values in itertools.product(*each.values()):
        changes = {**flatten(tests.set), **dict(zip(each, values, strict=True))}
        dotted = {f"task.{key}": value for key, value in changes.items()}
        changed = ExperimentConfig.from_dict(override(run.config.to_dict(), dotted))
        name = fill_name(tests.name, changed)
        yield PlannedRetest(run, name, changes, passes, tests.examples)


def _missing_passes(retest: PlannedRetest) -> tuple[int, ...]:
    tested = {record["passes"] for record in _find_entry(retest).get("test", ())}
    return tuple(count for count in retest.passes if count not in tested)


def _find_entry(retest: PlannedRetest) -> dict[str, Any]:
    """The line of a test, empty if there is none."""
    return next((entry for entry in _entries(retest.run) if _is_of(entry, retest)), {})


def _record(retest: PlannedRetest, scored: dict[str, Any], records: list[dict[str, Any]]) -> None:
    """Adds records to the line of a test, which other figures may have made with other passes."""
    before = _find_entry(retest).get("test", [])
    test = sorted([*before, *records], key=lambda record: record["passes"])
    entry = {"changes": retest.changes, "examples": retest.examples, **scored, "test": test}
    others = [other for other in _entries(retest.run) if not _is_of(other, retest)]
    write_atomically(_file(retest.run), dump_lines([*others, entry]))


def _is_of(entry: dict[str, Any], retest: PlannedRetest) -> bool:
    return (entry["changes"], entry["examples"]) == (retest.changes, retest.examples)


def _entries(run: PlannedRun) -> list[dict[str, Any]]:
    file = _file(run)
    if not file.exists():
        return []
    try:
        lines = parse_lines(file.read_bytes(), file)
        for number, line in enumerate(lines, 1):
            if not line.keys() >= RECORDED:
                raise ValueError(f"{file}: line {number} is no test; restore the file")
    except ValueError as error:
        raise ValueError(f"{error}, or delete it to test anew") from None
    return lines


def _file(run: PlannedRun) -> Path:
    return run.folder / "retests.jsonl"


def _weights(run: PlannedRun) -> Path:
    return run.folder / "checkpoint" / "model.safetensors"
