"""Trains what a figure lacks, then rebuilds its tables and figures from what is recorded."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from slowwave.console import PlainConsole
from slowwave.lab.canvas import save_figure
from slowwave.lab.plots import draw_all
from slowwave.lab.reproduction.bench import bench_command, bench_file
from slowwave.lab.reproduction.curves import draw_curves
from slowwave.lab.reproduction.figures import (
    SCALES,
    FigureConfig,
    Scale,
    choose_figure,
    choose_scale,
    read_figures,
)
from slowwave.lab.reproduction.listing import list_figures, print_bench, print_retests, print_runs
from slowwave.lab.reproduction.probes import plan_again, print_probes, probe_runs
from slowwave.lab.reproduction.progress import TrainingProgress
from slowwave.lab.reproduction.question_costs import write_question_costs
from slowwave.lab.reproduction.retest_results import draw_retests, gather_retests, retest_table
from slowwave.lab.reproduction.retests import plan_retests, run_retests
from slowwave.lab.reproduction.runs import RESULTS, PlannedRun, find_state, plan_runs
from slowwave.lab.reproduction.table import results_readme
from slowwave.lab.reproduction.workers import SLOWWAVE, train_runs
from slowwave.lab.run_results import find_runs
from slowwave.status_line import StatusLine
from slowwave.storage.files import write_atomically
from slowwave.wording import describe_unknown

INTERRUPTED = 130


def list_all(*, seeds: int) -> None:
    """Prints every figure and scale, and how much of it is recorded."""
    PlainConsole().print(list_figures(read_figures(), seeds=seeds))


def show_runs(name: str, scale: str, *, seeds: int) -> None:
    """Prints what a figure (all figures, if no name is given) runs, without running it."""
    console = PlainConsole()
    chosen = _choose(read_figures(), name, scale)
    again: list[PlannedRun] = []
    for figure, known in chosen:
        if known in figure.bench:
            print_bench(figure.bench[known], console)
        if figure.probes:
            runs = plan_runs(figure, known, seeds=seeds)
            print_probes(runs, console)
            again += plan_again(runs)
    print_runs([*_plan_all(chosen, seeds), *again], console)
    for figure, known in chosen:
        print_retests(plan_retests(figure, plan_runs(figure, known, seeds=seeds)), console)


def make(name: str, scale: str, *, seeds: int, jobs: int) -> None:
    """Trains, tests or measures what is not recorded of a figure, and rebuilds it.

    Runs train `jobs` at a time, tests follow one by one.

    Raises ValueError if a run fails, which the others do not wait for, or if a folder holds another
    run; KeyboardInterrupt when interrupted, with all runs saved.
    """
    console = PlainConsole(stderr=True)
    ((figure, known),) = _choose(read_figures(), name, scale)
    try:
        if known in figure.bench:
            _measure(figure.bench[known])
        else:
            runs = plan_runs(figure, known, seeds=seeds)
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
    figures = read_figures()
    scales = [scale] if name else SCALES
    chosen = [entry for each in scales for entry in _choose(figures, name, each)]
    with StatusLine() as status:
        written = list(_rebuild(figures, chosen, seeds, status))
    for path in written:
        print(path)


def _rebuild(
    figures: dict[str, FigureConfig],
    chosen: Sequence[tuple[FigureConfig, Scale]],
    seeds: int,
    status: StatusLine,
) -> Iterator[Path]:
    """What is written, as it is."""
    yield _write_readme()
    for folder in dict.fromkeys(run.folder.parent for run in _plan_all(chosen, seeds)):
        if any(folder.glob("*/summary.json")):
            status.show(f"drawing the runs of {folder}")
            yield from draw_all(folder, folder)
    for title, figure in figures.items():
        for known in figure.scales:
            if (figure, known) in chosen:
                status.show(f"drawing {title}, {known}")
                yield from _draw_curves(title, figure, known, seeds)
                if figure.question_cost:
                    yield from write_question_costs(plan_runs(figure, known, seeds=seeds))
                yield from _write_retests(title, figure, known, seeds)


def _choose(
    figures: dict[str, FigureConfig], name: str, scale: str
) -> list[tuple[FigureConfig, Scale]]:
    """The figure of a name at a scale; without a name all that have the scale."""
    if scale not in SCALES:
        raise ValueError(describe_unknown("scale", scale, SCALES))
    if name:
        figure = choose_figure(figures, name)
        return [(figure, choose_scale(figure, name, scale))]
    return [(f, known) for f in figures.values() for known in f.scales if known == scale]


def _plan_all(chosen: Sequence[tuple[FigureConfig, Scale]], seeds: int) -> list[PlannedRun]:
    """The runs of several figures, each once."""
    runs = [run for figure, scale in chosen for run in plan_runs(figure, scale, seeds=seeds)]
    return list({run.folder: run for run in runs}.values())


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
        said = f"recorded without a checkpoint, so trained once more to be probed: {names}"
        console.print(said)
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


def _draw_curves(name: str, figure: FigureConfig, scale: Scale, seeds: int) -> list[Path]:
    """The figure's own curves, if it has any and a run is recorded."""
    runs = plan_runs(figure, scale, seeds=seeds)
    finished = [found for run in runs for found in find_runs(run.folder)]
    if not figure.curve_by or not finished:
        return []
    path = RESULTS / runs[0].recipe / f"{name}.png"
    return [save_figure(draw_curves(figure, scale, finished), path)]


def _write_retests(name: str, figure: FigureConfig, scale: Scale, seeds: int) -> list[Path]:
    """Figure and table of the tests that a figure adds, if one is recorded."""
    runs = plan_runs(figure, scale, seeds=seeds)
    tests = gather_retests(plan_retests(figure, runs))
    if not tests:
        return []
    folder = RESULTS / runs[0].recipe
    table = folder / f"{name}.md"
    write_atomically(table, retest_table(tests).encode())
    drawing = draw_retests(figure, tests, runs[0].settings)
    return [save_figure(drawing, folder / f"{name}.png"), table]


def _write_readme() -> Path:
    path = RESULTS / "README.md"
    write_atomically(path, results_readme(read_figures()).encode())
    return path
