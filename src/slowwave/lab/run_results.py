"""What finished runs left on disk, gathered for figures and written as tables; torch-free.

Runs are grouped into variants: one for each config, apart from the seed and the trained N. The
variant with the most runs is the base, and the others are named by what differs from it.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from slowwave.config import find_differences, flatten
from slowwave.evaluation.measure import SHARE, Measure
from slowwave.experiment import read_config
from slowwave.training.run_files import read_metrics, read_summary

BASE = "base"
# These tell the runs of one variant apart.
_WITHIN_VARIANT = ("train.seed", "sleep.passes")
# Of the floors of a task, these are about what a group holds: single labels, facts that were told.
# The others are about all answers.
_GROUP_FLOORS = ("bit", "guess")
# A model that forgets every fact is right about all groups but those that are looked at.
_WHOLE_FLOORS = ("forgetful",)


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """A finished run. settings: its config with dotted names. evaluations: lines of metrics.jsonl
    that hold one."""

    folder: Path
    settings: dict[str, Any]
    summary: dict[str, Any]
    evaluations: tuple[dict[str, Any], ...]

    @property
    def passes(self) -> int:
        """N in training."""
        return self.settings["sleep.passes"]

    @property
    def tests(self) -> dict[int, dict[str, Any]]:
        """Test records by the N that was slept with."""
        return {record["passes"]: record for record in self.summary["test"]}

    @property
    def measure(self) -> Measure:
        """What figures show of its scores."""
        return Measure(self.summary.get("bytes_per_token"))

    @property
    def groups(self) -> dict[str, float]:
        """Final test score by label of the group, slept with the trained N."""
        return self.groups_at(self.passes)

    def groups_at(self, passes: int) -> dict[str, float]:
        """Final test score by label of the group, slept with N = `passes`."""
        groups = self.tests[passes]["groups"]
        return {label: self.measure.of(score) for label, score in groups.items()}

    @property
    def overall(self) -> dict[str, float]:
        """Final test scores over all groups, slept with the trained N."""
        return self.tests[self.passes]["overall"]

    @property
    def score(self) -> float:
        """Final test score over all groups, slept with the trained N."""
        return self.measure.of(self.overall)

    @property
    def exact(self) -> float:
        """Final test exact match over all groups, slept with the trained N."""
        return self.overall["exact"]


@dataclasses.dataclass(frozen=True, slots=True)
class Variant:
    """Runs of one config. changes: what differs from the base, by dotted name."""

    name: str
    changes: dict[str, Any]
    runs: tuple[Run, ...]

    @property
    def by_passes(self) -> dict[int, list[Run]]:
        """The runs of every trained N, in order."""
        counts = sorted({run.passes for run in self.runs})
        return {count: [run for run in self.runs if run.passes == count] for count in counts}

    @property
    def differs_in_training_only(self) -> bool:
        """Whether model, task and sleep are those of the base."""
        return all(key.startswith("train.") for key in self.changes)

    @property
    def measure(self) -> Measure:
        """What figures show of its scores."""
        return self.runs[0].measure

    @property
    def floors(self) -> dict[str, float]:
        """Exact match of predictors that read nothing, over all groups; none in bits per byte."""
        prefix = f"{self._group_name} "
        return {
            name: value
            for name, value in self._all_floors.items()
            if name not in _GROUP_FLOORS and not name.startswith(prefix)
        }

    @property
    def group_floors(self) -> dict[str, float]:
        """The same inside a group, where an answer may be a single label."""
        shared = {n: self._all_floors[n] for n in _GROUP_FLOORS if n in self._all_floors}
        whole = {name: v for name, v in self.floors.items() if name not in _WHOLE_FLOORS}
        return shared or ({} if self.floor_by_group else whole)

    @property
    def floor_by_group(self) -> dict[str, float]:
        """Exact match of the best predictor for each group, where a task names them: "op 4"."""
        named = {f"{self._group_name} {group}": group for run in self.runs for group in run.groups}
        return {named[name]: value for name, value in self._all_floors.items() if name in named}

    @property
    def _all_floors(self) -> dict[str, float]:
        return self.runs[0].summary["floors"] if self.measure.is_share else {}

    @property
    def _group_name(self) -> str:
        return self.runs[0].summary["group_name"]


@dataclasses.dataclass(frozen=True, slots=True)
class Spread:
    """Mean, lowest and highest over the seeds."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of one value a seed."""
        return cls(statistics.fmean(values), min(values), max(values))


@dataclasses.dataclass(frozen=True, slots=True)
class Curve:
    """Validation scores along training; one entry an evaluation."""

    tokens: list[float]
    flops: list[float]
    seconds: list[float]
    scores: list[float]


def find_runs(folder: Path) -> list[Run]:
    """All finished runs in or below `folder`, in order of their names."""
    found = sorted(path.parent for path in folder.rglob("summary.json"))
    return [_read_run(path) for path in found if (path / "config.json").exists()]


def find_variants(runs: Sequence[Run]) -> list[Variant]:
    """The base first, then the others by name.

    Raises ValueError if the runs are of several recipes, whose scores do not compare.
    """
    names = sorted({str(run.settings["name"]) for run in runs})
    if len(names) > 1:
        raise ValueError(
            f"the folder holds runs of several recipes ({', '.join(names)}); name the folder of one"
        )
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        grouped.setdefault(json.dumps(_shared(run), sort_keys=True), []).append(run)
    base = max(grouped.values(), key=len)
    variants = [_variant(members, _shared(base[0])) for members in grouped.values()]
    return sorted(variants, key=lambda variant: (bool(variant.changes), variant.name))


def base_settings(variants: Sequence[Variant]) -> dict[str, str]:
    """What the base has where other variants differ, by dotted name, as "layout=forked"."""
    base = _shared(variants[0].runs[0])
    changed = {key for variant in variants for key in variant.changes}
    return {key: _show(key, value, base) for key, value in base.items() if key in changed}


def mean_curve(runs: Sequence[Run]) -> Curve:
    """The mean over runs at every step that all of them evaluated."""
    by_step = [{line["step"]: line for line in run.evaluations} for run in runs]
    steps = sorted(set.intersection(*(set(lines) for lines in by_step)))

    def mean(key: str) -> list[float]:
        return [statistics.fmean(lines[step][key] for lines in by_step) for step in steps]

    measured = [
        {step: run.measure.of(line["evaluation"]["overall"]) for step, line in lines.items()}
        for run, lines in zip(runs, by_step, strict=True)
    ]
    scores = [statistics.fmean(each[step] for each in measured) for step in steps]
    return Curve(mean("tokens"), mean("flops"), mean("seconds"), scores)


def group_spreads(runs: Sequence[Run], passes: int | None = None) -> dict[str, Spread]:
    """Final test score of every group, slept with N = `passes`, the trained one if not given."""
    scores = [run.groups_at(passes or run.passes) for run in runs]
    return {group: Spread.of([each[group] for each in scores]) for group in scores[0]}


def passes_matrix(variant: Variant) -> dict[int, dict[int, float]]:
    """Mean test score by trained N, then by the N that was slept with."""
    return {
        trained: {
            tested: statistics.fmean(run.measure.of(run.tests[tested]["overall"]) for run in runs)
            for tested in sorted(set.intersection(*(set(run.tests) for run in runs)))
        }
        for trained, runs in variant.by_passes.items()
    }


def by_task_steps(variants: Sequence[Variant]) -> dict[int, Variant]:
    """The base and what differs from it in task.steps alone, by task.steps; often empty."""
    found: dict[int, Variant] = {
        variant.runs[0].settings["task.steps"]: variant
        for variant in variants
        if set(variant.changes) <= {"task.steps"} and "task.steps" in variant.runs[0].settings
    }
    return dict(sorted(found.items())) if len(found) > 1 else {}


def describe_seeds(variants: Iterable[Variant]) -> str:
    """Of every trained N: "1 seed", "mean of 3 seeds" or "mean of 1 to 3 seeds"."""
    counts = sorted({len(runs) for variant in variants for runs in variant.by_passes.values()})
    if counts == [1]:
        return "1 seed"
    many = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"mean of {many} seeds"


def markdown_table(variants: Sequence[Variant]) -> str:
    """One row for each variant and trained N, for a README to quote."""
    groups = dict.fromkeys(g for variant in variants for run in variant.runs for g in run.groups)
    group_name = variants[0].runs[0].summary["group_name"]
    measure = variants[0].measure
    columns = ["variant", "trained N", "seeds", "tokens", "TFLOP", "minutes"]
    columns += ["exact" if measure.is_share else measure.name, "sampled", "token"]
    columns += [f"{group_name} {group}" for group in groups]
    rows = [[*columns, "floors"], ["---", *["---:"] * (len(columns) - 1), "---"]]
    for variant in variants:
        for passes, runs in variant.by_passes.items():
            spreads = group_spreads(runs)
            rows.append(
                [
                    variant.name,
                    str(passes),
                    str(len(runs)),
                    f"{_mean(runs, 'tokens') / 1e6:.2f} M",
                    f"{_mean(runs, 'flops') / 1e12:.1f}",
                    f"{_mean(runs, 'seconds') / 60:.1f}",
                    show_spread(Spread.of([run.score for run in runs]), measure),
                    show_spread(Spread.of([run.overall["sampled"] for run in runs])),
                    show_spread(Spread.of([run.overall["token_accuracy"] for run in runs])),
                    *(show_spread(spreads[g], measure) if g in spreads else "" for g in groups),
                    show_floors(runs[0].summary["floors"]),
                ]
            )
    name = variants[0].runs[0].settings["name"]
    base = " ".join(base_settings(variants).values())
    return (
        f"{name}: scores on unseen test examples, slept with the trained N; mean over seeds,\n"
        "lowest and highest in brackets. Tokens, TFLOP and minutes are those of training.\n"
        "exact: greedy exact match; sampled: the probability of drawing the whole answer; token:\n"
        "single tokens.\n"
        + (f"The base has {base}; a variant is named by what it has instead.\n" if base else "")
        + f"\n{markdown_rows(rows)}\n"
    )


def markdown_rows(rows: Iterable[Sequence[str]]) -> str:
    """The lines of a table in Markdown, a row each, joined."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def show_spread(spread: Spread, measure: Measure = SHARE) -> str:
    """ "50.0% (40.0 to 60.0)", without brackets if all seeds agree."""
    low, high = (measure.show(value).removesuffix("%") for value in (spread.low, spread.high))
    return measure.show(spread.mean) + (f" ({low} to {high})" if low != high else "")


def show_floors(floors: Mapping[str, float]) -> str:
    """ "chance 11.1%, copy 20.0%"."""
    return ", ".join(f"{name} {value:.1%}" for name, value in floors.items())


def _read_run(folder: Path) -> Run:
    lines = read_metrics(folder / "metrics.jsonl")
    summary = read_summary(folder / "summary.json")
    settings = flatten(read_config(folder).to_dict())
    evaluations = tuple(line for line in lines if line.get("evaluation") is not None)
    passes = settings["sleep.passes"]
    if passes not in {record["passes"] for record in summary["test"]}:
        raise ValueError(
            f"{folder / 'config.json'}: sleep.passes is {passes}, which summary.json has no test "
            "of; restore the two files of one run"
        )
    return Run(folder, settings, summary, evaluations)


def _shared(run: Run) -> dict[str, Any]:
    return {key: value for key, value in run.settings.items() if key not in _WITHIN_VARIANT}


def _variant(runs: list[Run], base: dict[str, Any]) -> Variant:
    own = _shared(runs[0])
    keys = [*own, *(key for key in base if key not in own)]
    changes = {key: own.get(key) for key in find_differences(own, base)}
    name = " ".join(_show(key, value, keys) for key, value in changes.items())
    return Variant(name or BASE, changes, tuple(runs))


def _show(key: str, value: Any, keys: Iterable[str]) -> str:
    """ "steps=8", or "task.steps=8" where several sections have steps."""
    last = key.rpartition(".")[2]
    if [other.rpartition(".")[2] for other in keys].count(last) > 1:
        last = key
    if isinstance(value, float):
        return f"{last}={value:g}"
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return f"{last}={text}"


def _mean(runs: Sequence[Run], key: str) -> float:
    return statistics.fmean(run.summary[key] for run in runs)
