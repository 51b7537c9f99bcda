"""What there is to reproduce and what of it is recorded, for people."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from slowwave.lab.reproduction.bench import bench_command, bench_file
from slowwave.lab.reproduction.figures import FigureConfig, Scale
from slowwave.lab.reproduction.probes import list_unprobed
from slowwave.lab.reproduction.retests import PlannedRetest, find_retest_state, plan_retests
from slowwave.lab.reproduction.runs import (
    Cost,
    PlannedRun,
    State,
    find_state,
    plan_runs,
    planned_cost,
    steps_done,
)
from slowwave.lab.run_results import find_runs


def list_figures(figures: dict[str, FigureConfig], *, seeds: int) -> Table:
    """One row a figure and scale."""
    table = Table()
    for column in ("figure", "scale", "what it shows", "recorded"):
        table.add_column(column)
    for name, figure in figures.items():
        shown = f"{figure.title}. {figure.shows}"
        for scale in figure.scales:
            table.add_row(name, scale, shown, _count_recorded(figure, scale, seeds))
            name = shown = ""
        if not figure.scales:
            table.add_row(name, "-", shown, "nothing to run yet")
    return table


def print_runs(runs: Sequence[PlannedRun], console: Console) -> None:
    """Every run with its state, its tokens and FLOPs, and the command that makes it."""
    left = Cost(0, 0)
    for run in runs:
        state, cost = find_state(run), planned_cost(run)
        if state == "recorded":
            (recorded,) = find_runs(run.folder)
            cost = Cost(recorded.summary["tokens"], recorded.summary["flops"])
        else:
            left = Cost(left.tokens + cost.tokens, left.flops + cost.flops)
        _print(console, f"{run.folder}: {_describe(run, state)}, {_describe_cost(cost)}")
        _print(console, f"  {shlex.join(['slowwave', *run.arguments])}")
    _print(console, f"not recorded, all together: {_describe_cost(left)}")


def print_retests(retests: Sequence[PlannedRetest], console: Console) -> None:
    """Every test with its state and a command that shows the same."""
    for retest in retests:
        state = find_retest_state(retest)
        _print(console, f"{retest.run.folder}, tested with {retest.name}: {state}")
        _print(console, f"  {shlex.join(['slowwave', *retest.arguments])}")


def print_bench(what: str, console: Console) -> None:
    """A measurement with its state and the command that makes it."""
    state: State = "recorded" if bench_file(what).exists() else "to do"
    _print(console, f"{bench_file(what)}: {state}")
    _print(console, f"  {shlex.join(['slowwave', *bench_command(what)])}")


def _count_recorded(figure: FigureConfig, scale: Scale, seeds: int) -> str:
    if scale in figure.bench:
        return "measured" if bench_file(figure.bench[scale]).exists() else "not measured"
    runs = plan_runs(figure, scale, seeds=seeds)
    states = [find_state(run) for run in runs]
    partly = f", {states.count('partly')} partly" if "partly" in states else ""
    counted = f"{states.count('recorded')} of {len(states)} runs{partly}"
    if figure.probes:
        counted += f", {len(runs) - len(list_unprobed(runs))} probed"
    retests = [find_retest_state(retest) for retest in plan_retests(figure, runs)]
    if not retests:
        return counted
    tested = f"{retests.count('recorded')} of {len(retests)} tests"
    unable = retests.count("checkpoint not here")
    return f"{counted}, {tested}" + (f", {unable} without checkpoint here" if unable else "")


def _describe(run: PlannedRun, state: State) -> str:
    if state != "partly":
        return state
    return f"partly, step {steps_done(run)} of {run.config.train.steps}"


def _describe_cost(cost: Cost) -> str:
    return f"{cost.tokens / 1e6:,.2f} M tokens, {cost.flops / 1e12:,.1f} TFLOP"


def _print(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True)
