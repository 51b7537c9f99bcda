"""results/README.md: the paper's numbers beside ours, drawn from what is recorded."""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from slowwave.lab.reproduction.figures import SCALES, FigureConfig, Scale, TargetConfig
from slowwave.lab.reproduction.question_cost import question_cost_table_file
from slowwave.lab.reproduction.retests import find_retested, plan_retests
from slowwave.lab.reproduction.runs import (
    RESULTS,
    SEED,
    PlannedRun,
    bench_file,
    matches,
    plan_runs,
    probe_file,
)
from slowwave.lab.run_results import (
    Run,
    Spread,
    find_runs,
    find_variants,
    markdown_rows,
    show_floors,
    show_spread,
)

SEEDS = 3
NOT_RUN = "not run"
COLUMNS = ("figure", "scale", "what", "paper", "slowwave", "floors", "TFLOP", "seeds", "runs")

INTRODUCTION = f"""# What is recorded

The numbers of the paper (arXiv 2605.26099) and of our own questions beside what the recorded runs
scored. `slowwave reproduce NAME` makes a row's runs, or those of them that are missing, and
`slowwave reproduce --redraw` writes this file: do not edit it. Scale paper is the paper's size,
mini one for two CPU cores, of which the paper has no numbers; what we train otherwise than the
paper stands in each recipe.

Right answers are exact match by greedy decoding on unseen test examples (validation examples where
a row names tokens before the end), losses nats a labelled token; the mean over seeds, lowest and
highest in brackets. Floors are what those score who read nothing. TFLOP: what training cost up to
that score, the mean over seeds. Seeds: recorded of those asked for, at most {SEEDS}. The paper's
numbers are one seed each, most of them read off its figures; how it decodes it does not say. Tested
with: trained runs on a changed task, slept with the trained N; other N, and groups, stand in a
table beside the runs that is named after the figure.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Curve:
    """Runs that differ in their seed alone. figures: the names of those that show them."""

    scale: Scale
    figures: list[str]
    runs: dict[Path, PlannedRun]

    @property
    def first(self) -> PlannedRun:
        """The run of the first seed."""
        return next(iter(self.runs.values()))

    @property
    def recorded(self) -> list[Run]:
        """Those of its runs that are finished."""
        return [run for folder in self.runs for run in find_runs(folder)]

    @property
    def label(self) -> str:
        """Its recipe and what it changes."""
        run = self.first
        changes = {k: v for k, v in run.overrides.items() if k not in (SEED, "sleep.passes")}
        settings = [f"{run.recipe}, N = {run.config.sleep.passes}"]
        return " ".join([*settings, *(f"{key}={value}" for key, value in changes.items())])


def results_readme(figures: dict[str, FigureConfig]) -> str:
    """The whole text of results/README.md."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *_rows(figures)]
    return f"{INTRODUCTION}\n{markdown_rows(rows)}\n"


def find_curves(figures: dict[str, FigureConfig]) -> list[Curve]:
    """All curves of all figures, each once."""
    curves: dict[tuple[Scale, str, str], Curve] = {}
    for (name, figure), scale in itertools.product(figures.items(), SCALES):
        for run in plan_runs(figure, scale, seeds=SEEDS):
            shared = json.dumps({**run.settings, SEED: None}, sort_keys=True)
            curve = curves.setdefault((scale, run.recipe, shared), Curve(scale, [], {}))
            curve.runs[run.folder] = run
            if name not in curve.figures:
                curve.figures.append(name)
    return list(curves.values())


def _rows(figures: dict[str, FigureConfig]) -> Iterator[tuple[str, ...]]:
    curves = find_curves(figures)
    for name, figure in figures.items():
        answered: list[Curve] = []
        for target in figure.targets:
            found = [
                curve
                for curve in curves
                if curve.scale == "paper" and name in curve.figures
                if matches(curve.first.settings, target.where)
            ]
            yield _target_row(name, target, found[0] if found else None)
            answered += found
        for scale, what in figure.bench.items():
            yield _bench_row(name, scale, what)
        for scale in reversed(figure.scales):
            if figure.question_cost:
                yield _question_cost_row(name, scale, figure.runs(scale)[0].recipe)
        if figure.probes:
            yield from (_probe_row(name, scale, figure) for scale in figure.scales)
        for scale in reversed(SCALES):
            for curve in curves:
                is_first = curve.figures[0] == name and curve.scale == scale
                if is_first and curve not in answered:
                    yield _curve_row(curve)
            for curve in curves:
                if name in curve.figures and curve.scale == scale:
                    yield from _retest_rows(name, figure, curve)


def _target_row(figure: str, target: TargetConfig, curve: Curve | None) -> tuple[str, ...]:
    show = show_spread if target.score == "exact" else _nats
    start = (figure, "paper", target.what, show(Spread.of([target.value])))
    if curve is None:
        return (*start, NOT_RUN, "", "", "", "")
    of_all = target.score == "exact" and target.group is None
    cells = _cells(
        curve.recorded,
        len(curve.runs),
        lambda run: _score(run, target),
        show,
        floors=of_all,
        tokens=target.tokens,
    )
    return (*start, *cells)


def _curve_row(curve: Curve) -> tuple[str, ...]:
    cells = _cells(curve.recorded, len(curve.runs), lambda run: run.exact, show_spread, floors=True)
    return (", ".join(curve.figures), curve.scale, curve.label, "", *cells)


def _retest_rows(name: str, figure: FigureConfig, curve: Curve) -> Iterator[tuple[str, ...]]:
    """A row for each test of a curve's runs, slept with the trained N."""
    planned = plan_retests(figure, plan_runs(figure, curve.scale, seeds=SEEDS))
    retests = [retest for retest in planned if retest.run.folder in curve.runs]
    for test in dict.fromkeys(retest.name for retest in retests):
        same = [retest for retest in retests if retest.name == test]
        runs = [run for retest in same for run in find_retested(retest)]
        shown = _cells(runs, len(same), lambda run: run.exact, show_spread, floors=True)
        yield (name, curve.scale, f"{curve.label}, tested with {test}", "", *shown)


def _bench_row(figure: str, scale: Scale, what: str) -> tuple[str, ...]:
    file = bench_file(what)
    measured = f"[measured]({_link(file)})" if file.exists() else NOT_RUN
    return (figure, scale, f"`slowwave bench {what}`", "", measured, "", "", "", "")


def _question_cost_row(figure: str, scale: Scale, recipe: str) -> tuple[str, ...]:
    link = f"[counted]({_link(question_cost_table_file(RESULTS / recipe))})"
    return (figure, scale, "what an answer costs", "", link, "", "", "", "")


def _probe_row(name: str, scale: Scale, figure: FigureConfig) -> tuple[str, ...]:
    runs = plan_runs(figure, scale, seeds=SEEDS)
    links = [f"[{r.name}]({_link(probe_file(r))})" for r in runs if probe_file(r).exists()]
    count = f"{len(links)} of {len(runs)}"
    return (name, scale, "`slowwave probe`", "", ", ".join(links) or NOT_RUN, "", "", count, "")


def _cells(
    runs: Sequence[Run],
    asked: int,
    score: Callable[[Run], float],
    show: Callable[[Spread], str],
    *,
    floors: bool,
    tokens: float | None = None,
) -> tuple[str, str, str, str, str]:
    """What we scored, the floors, what training cost, how many seeds, and links to the runs.

    tokens: after how many training tokens; the whole run if not given.
    """
    if not runs:
        return NOT_RUN, "", "", f"0 of {asked}", ""
    links = ", ".join(f"[{r.settings[SEED]}]({_link(r.folder)})" for r in runs)
    (variant,) = find_variants(runs)
    spread = Spread.of([score(run) for run in runs])
    tflop = f"{statistics.fmean(_flops(run, tokens) for run in runs) / 1e12:,.1f}"
    shown = show_floors(variant.floors) if floors else ""
    return show(spread), shown, tflop, f"{len(runs)} of {asked}", links


def _flops(run: Run, tokens: float | None) -> int:
    return (run.summary if tokens is None else _nearest(run.evaluations, tokens))["flops"]


def _score(run: Run, target: TargetConfig) -> float:
    if target.tokens is not None:
        scores = _nearest(run.evaluations, target.tokens)["evaluation"]
    else:
        scores = run.tests[run.passes]
    chosen = scores["overall"] if target.group is None else scores["groups"][target.group]
    return chosen[target.score]


def _nearest(evaluations: Sequence[dict[str, Any]], tokens: float) -> dict[str, Any]:
    return min(evaluations, key=lambda line: abs(line["tokens"] - tokens))


def _link(path: Path) -> str:
    return path.relative_to(RESULTS).as_posix()


def _nats(spread: Spread) -> str:
    low, high = f"{spread.low:.2f}", f"{spread.high:.2f}"
    return f"{spread.mean:.2f} nats" + (f" ({low} to {high})" if low != high else "")
