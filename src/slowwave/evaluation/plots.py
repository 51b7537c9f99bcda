"""Figures, drawn only from what runs and traces left on disk."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slowwave.evaluation.run_results import (
    Run,
    Spread,
    Variant,
    by_task_steps,
    count_seeds,
    find_runs,
    find_variants,
    group_spreads,
    markdown_table,
    mean_curve,
    passes_matrix,
)
from slowwave.evaluation.stream_plot import draw_cache, draw_writes
from slowwave.storage.files import read_json, write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHES = ("--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))


def draw_all(folder: Path, out: Path) -> list[Path]:
    """Draws every figure that the files below `folder` have the data for, and table.md, into `out`.

    Returns what was written. Raises ValueError if there is no finished run and no stream.json, or
    if the runs are of several recipes.
    """
    runs = find_runs(folder)
    written: list[Path] = []
    if runs:
        variants = find_variants(runs)
        for name, draw in FIGURES.items():
            figure = draw(variants)
            if figure is not None:
                written.append(save(figure, out / name))
        write_atomically(out / "table.md", markdown_table(variants).encode())
        written.append(out / "table.md")
    stream = folder / "stream.json"
    if stream.exists():
        written.append(save(draw_stream(read_json(stream)), out / "stream.png"))
    if not written:
        raise ValueError(
            f"{folder}: no finished run (summary.json beside config.json) in or below it; name a "
            "folder of runs, or finish one with slowwave train"
        )
    return written


def draw_learning_curves(variants: Sequence[Variant]) -> Figure | None:
    """Validation exact match against tokens, FLOPs and minutes; other training set-ups dashed."""
    shown = [v for v in variants if v.differs_in_training_only and _is_evaluated(v)]
    if not shown or shown[0] is not variants[0]:
        return None
    figure = new_figure(12, 4.6)
    panels: list[Axes] = list(figure.subplots(1, 3, sharey=True))
    scales = (("tokens", 1e6, "training tokens (millions)"), ("flops", 1e12, "training TFLOP"))
    for axes, (key, unit, label) in zip(
        panels, (*scales, ("seconds", 60, "training minutes")), strict=True
    ):
        for runs, style, name in _styled(shown):
            for run in runs if len(runs) > 1 else []:
                curve = mean_curve([run])
                x = [value / unit for value in getattr(curve, key)]
                axes.plot(x, curve.exact, color=style["color"], linewidth=0.7, alpha=0.6)
            curve = mean_curve(runs)
            x = [value / unit for value in getattr(curve, key)]
            axes.plot(x, curve.exact, **style, label=name)
        draw_floors(axes, variants[0].floors)
        axes.set_xlabel(label)
        axes.set_xlim(left=0)
        tidy(axes)
    panels[0].set_ylabel("validation exact match")
    seeds = count_seeds(list(variants[0].by_passes.values()))
    _finish(
        figure,
        f"{_recipe(variants)}: learning with N sleep passes a window",
        f"bold: mean of {seeds}; thin: each seed",
        panels[0],
    )
    return figure


def draw_by_group(variants: Sequence[Variant]) -> Figure:
    """Final test exact match by group, one line for each trained N."""
    name = variants[0].runs[0].summary["group_name"]
    figure = new_figure(8, 5)
    axes: Axes = figure.subplots()
    shown = [variant for variant in variants if variant.differs_in_training_only]
    lines = [(group_spreads(runs), style, text) for runs, style, text in _styled(shown)]
    draw_groups(axes, lines, variants[0].group_floors, name)
    seeds = count_seeds(list(variants[0].by_passes.values()))
    _finish(
        figure,
        f"{_recipe(variants)}: test exact match by {name}",
        f"mean of {seeds}, whiskers from lowest to highest; unseen examples",
        axes,
    )
    return figure


def draw_passes(variants: Sequence[Variant]) -> Figure | None:
    """Heat map of trained N against the N slept with at test time."""
    matrix = passes_matrix(variants[0])
    trained, tested = list(matrix), sorted({count for row in matrix.values() for count in row})
    if len(tested) < 2:
        return None
    figure = new_figure(1.6 + 1.1 * max(4, len(tested)), 1.9 + 0.75 * len(trained))
    axes: Axes = figure.subplots()
    cells = [[matrix[row].get(column, float("nan")) for column in tested] for row in trained]
    axes.imshow(cells, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for y, row in enumerate(trained):
        for x, column in enumerate(tested):
            if column in matrix[row]:
                value = matrix[row][column]
                weight = "bold" if row == column else "normal"
                color = "black" if value > 0.5 else "white"
                axes.text(
                    x, y, f"{value:.1%}", ha="center", va="center", color=color, weight=weight
                )
    axes.set_xticks(range(len(tested)), [str(count) for count in tested])
    axes.set_yticks(range(len(trained)), [str(count) for count in trained])
    axes.set_xlabel("N slept with at test time")
    axes.set_ylabel("N trained with")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    seeds = count_seeds(list(variants[0].by_passes.values()))
    title(
        figure,
        f"{_recipe(variants)}: more or fewer passes than trained",
        f"test exact match, mean of {seeds}; bold: as trained",
    )
    return figure


def draw_accuracy_by_steps(variants: Sequence[Variant]) -> Figure | None:
    """Final exact match against the task's steps t, where runs differ in it."""
    found = by_task_steps(variants)
    if not found:
        return None
    figure = new_figure(7, 4.6)
    axes: Axes = figure.subplots()
    for count in sorted({run.passes for variant in found.values() for run in variant.runs}):
        points = {
            steps: Spread.of([run.exact for run in variant.by_passes[count]])
            for steps, variant in found.items()
            if count in variant.by_passes
        }
        draw_spreads(axes, points, style(count), f"N = {count}")
    for name in found[next(iter(found))].floors:
        values = [variant.floors[name] for variant in found.values()]
        axes.plot(list(found), values, **FLOOR)
        label_floor(axes, f"floor: {name}", values[-1], at=0.99)
    axes.set_xlabel("steps t between what is read and what is asked")
    axes.set_ylabel("test exact match")
    axes.set_xticks(list(found))
    tidy(axes)
    seeds = count_seeds([runs for v in found.values() for runs in v.by_passes.values()])
    _finish(
        figure,
        f"{_recipe(variants)}: exact match by steps of the automaton",
        f"mean of {seeds} for each point, whiskers from lowest to highest; unseen examples",
        axes,
    )
    return figure


def draw_variants(variants: Sequence[Variant]) -> Figure | None:
    """One row for each variant and trained N: final test exact match, every seed a dot."""
    if len(variants) == 1:
        return None
    rows = [(v, count, runs) for v in variants for count, runs in v.by_passes.items()]
    figure = new_figure(9, 1.4 + 0.32 * len(rows))
    axes: Axes = figure.subplots()
    for y, (variant, count, runs) in enumerate(rows):
        color, marker = COLOURS[place(count)], MARKERS[place(count)]
        spread = Spread.of([run.exact for run in runs])
        axes.plot([spread.mean], [y], marker="|", color=color, markersize=16, markeredgewidth=3)
        axes.plot([run.exact for run in runs], [y] * len(runs), marker, color=color, alpha=0.8)
        for value in variant.floors.values():
            axes.plot([value, value], [y - 0.4, y + 0.4], **FLOOR)
        axes.text(1.03, y, f"{spread.mean:.1%}", va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [f"{v.name}, N = {count}" for v, count, _ in rows])
    axes.invert_yaxis()
    tidy(axes, percent="x")
    axes.set_xlabel("test exact match")
    seeds = count_seeds([runs for _, _, runs in rows])
    title(
        figure,
        f"{_recipe(variants)}: what changes when one thing is changed",
        f"{seeds} each: dots; bar and number: their mean; dotted: floors",
    )
    return figure


FIGURES: dict[str, Callable[[Sequence[Variant]], Figure | None]] = {
    "learning-curves.png": draw_learning_curves,
    "by-group.png": draw_by_group,
    "passes.png": draw_passes,
    "accuracy-by-steps.png": draw_accuracy_by_steps,
    "variants.png": draw_variants,
}


def _styled(variants: Sequence[Variant]) -> Iterable[tuple[list[Run], dict[str, Any], str]]:
    """The runs, line style and label of every line: the base is bold, other variants dashed."""
    for index, variant in enumerate(variants):
        for count, runs in variant.by_passes.items():
            style = style(count)
            if index == 0:
                yield runs, style, f"N = {count}"
                continue
            dash = DASHES[(index - 1) % len(DASHES)]
            style |= {"linestyle": dash, "linewidth": 1.6, "markerfacecolor": "white"}
            yield runs, style, f"N = {count}, {variant.name}"


def _is_evaluated(variant: Variant) -> bool:
    return all(run.evaluations for run in variant.runs)


def _recipe(variants: Sequence[Variant]) -> str:
    return str(variants[0].runs[0].settings["name"])


def _finish(figure: Figure, title: str, caption: str, axes: Axes) -> None:
    """Title, caption, and one legend below for all panels, which share the lines of `axes`."""
    title(figure, title, caption)
    handles, labels = axes.get_legend_handles_labels()
    columns = 4 if figure.get_figwidth() > 10 else 3 if len(labels) > 4 else 4
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9,
        handlelength=3.5,
    )
