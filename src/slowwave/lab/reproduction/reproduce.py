"""Lists what can be reproduced, trains what a figure lacks, and rebuilds what is drawn of it."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from slowwave.console import PlainConsole
from slowwave.lab.canvas import save_figure
from slowwave.lab.plots import draw_all
from slowwave.lab.reproduction.drawings import (
    draw_curves,
    draw_retests,
    gather_retests,
    retest_table,
)
from slowwave.lab.reproduction.figures import SCALES, FigureConfig, Scale, check_scale, read_figures
from slowwave.lab.reproduction.question_cost import write_question_costs
from slowwave.lab.reproduction.retests import find_retest_state, plan_retests, run_retests
from slowwave.lab.reproduction.runs import (
    RESULTS,
    Cost,
    PlannedRun,
    bench_command,
    bench_file,
    find_state,
    list_unprobed,
    plan_again,
    plan_runs,
    planned_cost,
    probe_file,
    probe_runs,
)
from slowwave.lab.reproduction.table import results_readme
from slowwave.lab.reproduction.workers import SLOWWAVE, TrainingProgress, train_runs
from slowwave.lab.run_results import find_runs
from slowwave.status_line import StatusLine
from slowwave.storage.files import write_atomically
from slowwave.training.run_folder import count_saved_steps
from slowwave.wording import describe_unknown

INTERRUPTED = 130


class Chosen(NamedTuple):
    """A figure at a scale, and the runs that it needs."""

    name: str
    figure: FigureConfig
    scale: Scale
    runs: list[PlannedRun]


def list_all(*, seeds: int) -> None:
    """Prints every figure and scale, and how much of it is recorded."""
    table = Table()
    for column in ("figure", "scale", "what it shows", "recorded"):
        table.add_column(column)
    for name, figure in read_figures().items():
        shown = f"{figure.title}. {figure.shows}"
        for scale in figure.scales:
            table.add_row(name, scale, shown, _count_recorded(figure, scale, seeds))
            name = shown = ""
        if not figure.scales:
            table.add_row(name, "-", shown, "nothing to run yet")
    PlainConsole().print(table)


def show_runs(name: str, scale: str, *, seeds: int) -> None:
    """Prints what a figure (all figures, if no name is given) runs, without running it."""
    console = PlainConsole()
    chosen = _choose(name, scale, seeds)
    again: list[PlannedRun] = []
    for _, figure, known, runs in chosen:
        if known in figure.bench:
            what = figure.bench[known]
            state = "recorded" if bench_file(what).exists() else "to do"
            _print(console, f"{bench_file(what)}: {state}", bench_command(what))
        if figure.probes:
            unprobed = list_unprobed(runs)
            for run in runs:
                _print(console, f"{probe_file(run)}: {'to do' if run in unprobed else 'recorded'}")
            again += plan_again(runs)
    _print_runs([*_gather_runs(chosen), *again], console)
    for _, figure, _, runs in chosen:
        for retest in plan_retests(figure, runs):
            tested = f"{retest.run.folder}, tested with {retest.name}"
            _print(console, f"{tested}: {find_retest_state(retest)}", retest.arguments)


def make(name: str, scale: str, *, seeds: int, jobs: int) -> None:
    """Trains, tests or measures what is not recorded of a figure, and rebuilds it.

    Runs train `jobs` at a time, tests follow one by one.

    Raises ValueError if a run fails, which the others do not wait for, or if a folder holds another
    run; KeyboardInterrupt when interrupted, with all runs saved.
    """
    console = PlainConsole(stderr=True)
    ((_, figure, known, runs),) = _choose(name, scale, seeds)
    try:
        if known in figure.bench:
            _measure(figure.bench[known])
        else:
            _train(runs, console, jobs=jobs)
            if figure.probes:
                _probe(runs, console, jobs=jobs)
            if figure.retests:
                run_retests(plan_retests(figure, runs), console)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted and saved; the same command goes on") from None
    finally:
        _write_readme()
    rebuild(name, scale, seeds=seeds)


def rebuild(name: str, scale: str, *, seeds: int) -> None:
    """Rebuilds results/README.md, and tables and figures of a figure (of all, without a name)."""
    chosen = _choose(name, scale if name else None, seeds)
    with StatusLine() as status:
        written = list(_rebuild(chosen, status))
    for path in written:
        print(path)


def _choose(name: str, scale: str | None, seeds: int) -> list[Chosen]:
    """The figure of a name, or all without one; at a scale, or at all that they have if None."""
    figures = read_figures()
    if scale is not None and scale not in SCALES:
        raise ValueError(describe_unknown("scale", scale, SCALES))
    if name and name not in figures:
        raise ValueError(describe_unknown("figure", name, figures))
    if name:
        figures = {name: figures[name]}
        if scale is not None:
            check_scale(figures[name], name, scale)
    return [
        Chosen(each, figure, known, plan_runs(figure, known, seeds=seeds))
        for each, figure in figures.items()
        for known in figure.scales
        if scale in (None, known)
    ]


def _gather_runs(chosen: Sequence[Chosen]) -> list[PlannedRun]:
    """The runs of several figures, each once."""
    return list({run.folder: run for entry in chosen for run in entry.runs}.values())


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


def _print_runs(runs: Sequence[PlannedRun], console: Console) -> None:
    """Every run with its state, its tokens and FLOPs, and the command that makes it."""
    left = Cost(0, 0)
    for run in runs:
        state, cost = find_state(run), planned_cost(run)
        if state == "recorded":
            (recorded,) = find_runs(run.folder)
            cost = Cost(recorded.summary["tokens"], recorded.summary["flops"])
        else:
            left = Cost(left.tokens + cost.tokens, left.flops + cost.flops)
        done = f", step {count_saved_steps(run.folder)} of {run.config.train.steps}"
        stands = state + (done if state == "partly" else "")
        _print(console, f"{run.folder}: {stands}, {_describe_cost(cost)}", run.arguments)
    _print(console, f"not recorded, all together: {_describe_cost(left)}")


def _describe_cost(cost: Cost) -> str:
    return f"{cost.tokens / 1e6:,.2f} M tokens, {cost.flops / 1e12:,.1f} TFLOP"


def _print(console: Console, line: str, command: Sequence[str] = ()) -> None:
    """A line, and below it the `slowwave` command that it is about."""
    console.print(line, soft_wrap=True)
    if command:
        console.print(f"  {shlex.join(['slowwave', *command])}", soft_wrap=True)


def _train(runs: Sequence[PlannedRun], console: Console, *, jobs: int) -> None:
    missing = [run for run in runs if find_state(run) != "recorded"]
    recorded = len(runs) - len(missing)
    console.print(f"{recorded} of {len(runs)} runs are recorded")
    if missing:
        with TrainingProgress(missing, console) as progress:
            train_runs(missing, progress, jobs=jobs)


def _probe(runs: Sequence[PlannedRun], console: Console, *, jobs: int) -> None:
    again = plan_again(runs)
    if again:
        names = ", ".join(str(run.folder) for run in again)
        console.print(f"recorded without a checkpoint, so trained once more to be probed: {names}")
        _train(again, console, jobs=jobs)
    probe_runs(runs, console)


def _measure(what: str) -> None:
    if bench_file(what).exists():
        return
    # Ctrl-C comes to it as well, which says so.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        code = subprocess.run([*SLOWWAVE, *bench_command(what)]).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    if code == INTERRUPTED:
        sys.exit(INTERRUPTED)
    if code:
        raise ValueError(f"slowwave bench {what} ended with exit code {code}; see above")


def _rebuild(chosen: Sequence[Chosen], status: StatusLine) -> Iterator[Path]:
    """What is written, as it is."""
    yield _write_readme()
    by_scale = sorted(chosen, key=lambda entry: SCALES.index(entry.scale))
    for folder in dict.fromkeys(run.folder.parent for run in _gather_runs(by_scale)):
        if any(folder.glob("*/summary.json")):
            status.show(f"drawing the runs of {folder}")
            yield from draw_all(folder, folder)
    for entry in chosen:
        status.show(f"drawing {entry.name}, {entry.scale}")
        yield from _draw_own(*entry)


def _draw_own(
    name: str, figure: FigureConfig, scale: Scale, runs: list[PlannedRun]
) -> Iterator[Path]:
    """What the figure alone draws: curves, costs and retests, where there is something to draw."""
    finished = [found for run in runs for found in find_runs(run.folder)]
    if figure.curve_by and finished:
        drawing = draw_curves(figure, scale, finished)
        yield save_figure(drawing, RESULTS / runs[0].recipe / f"{name}.png")
    if figure.question_cost:
        yield from write_question_costs(runs)
    tests = gather_retests(plan_retests(figure, runs))
    if tests:
        table = RESULTS / runs[0].recipe / f"{name}.md"
        write_atomically(table, retest_table(tests).encode())
        drawing = draw_retests(figure, tests, runs[0].settings)
        yield save_figure(drawing, table.with_suffix(".png"))
        yield table


def _write_readme() -> Path:
    path = RESULTS / "README.md"
    write_atomically(path, results_readme(read_figures()).encode())
    return path
