"""Figures of training runs, drawn only from what they left on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slowwave.lab.canvas import (
    FLOOR_STYLE,
    add_legend,
    draw_floor_by_group,
    draw_floors,
    draw_groups,
    draw_spreads,
    label_floors,
    line_style,
    make_plain,
    new_figure,
    save_figure,
    set_title,
)
from slowwave.lab.memory_plots import draw_probes, draw_stream
from slowwave.lab.run_results import (
    Run,
    Spread,
    Variant,
    base_settings,
    by_task_steps,
    describe_seeds,
    find_runs,
    find_variants,
    group_spreads,
    markdown_table,
    mean_curve,
    passes_matrix,
)
from slowwave.storage.files import write_atomically
from slowwave.training.run_files import read_stream

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHES = ("--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
CURVE_AXES = {
    "tokens": (1e6, "training tokens (millions)"),
    "flops": (1e12, "training TFLOP"),
    "seconds": (60, "training minutes"),
}


def draw_all(folder: Path, out: Path) -> list[Path]:
    """Draws every figure that the files below `folder` have the data for, and table.md, into `out`.

    Returns what was written. Raises ValueError if there is no finished run, no probe.json and no
    stream.json, or if the runs are of several recipes.
    """
    runs = find_runs(folder)
    written: list[Path] = []
    if runs:
        variants = find_variants(runs)
        for name, draw in FIGURES.items():
            figure = draw(variants)
            if figure is not None:
                written.append(save_figure(figure, out / name))
        write_atomically(out / "table.md", markdown_table(variants).encode())
        written.append(out / "table.md")
    written += draw_probes(folder, out)
    if (folder / "stream.json").exists():
        stream = draw_stream(read_stream(folder / "stream.json"))
        written.append(save_figure(stream, out / "stream.png"))
    if not written:
        raise ValueError(
            f"{folder}: no finished run (summary.json beside config.json) in or below it; name a "
            "folder of runs, or finish one with slowwave train"
        )
    return written


def draw_learning_curves(variants: Sequence[Variant]) -> Figure | None:
    """Validation scores against tokens, FLOPs and minutes."""
    if not _is_evaluated(variants[0]):
        return None
    shown = [v for v in variants if v.differs_in_training_only and _is_evaluated(v)]
    measure = variants[0].measure
    figure = new_figure(12, 4.8)
    panels: list[Axes] = list(figure.subplots(1, 3, sharey=True))
    for axes, (key, (unit, label)) in zip(panels, CURVE_AXES.items(), strict=True):
        for runs, style, name in _styled(shown):
            for run in runs:
                curve = mean_curve([run])
                x = [value / unit for value in getattr(curve, key)]
                axes.plot(x, curve.scores, color=style["color"], linewidth=0.7, alpha=0.6)
            curve = mean_curve(runs)
            x = [value / unit for value in getattr(curve, key)]
            axes.plot(x, curve.scores, **style, label=name)
        draw_floors(axes, variants[0].floors)
        axes.set_xlabel(label)
        axes.set_xlim(left=0)
        make_plain(axes, measure=measure)
    panels[0].set_ylabel(f"validation {measure.name}")
    seeds = describe_seeds(variants[:1])
    set_title(figure, f"{_recipe(variants)}: learning with N passes over each window")
    caption = f"bold: {seeds}; thin: each seed" + _explain_dashes(shown)
    add_legend(figure, panels[0], caption, columns=4)
    return figure


def draw_by_group(variants: Sequence[Variant]) -> Figure:
    """Final test scores by group, one line for each trained N."""
    measure = variants[0].measure
    name = variants[0].runs[0].summary["group_name"]
    shown = [variant for variant in variants if variant.differs_in_training_only]
    figure = new_figure(8, 5.4)
    axes: Axes = figure.subplots()
    lines = [(group_spreads(runs), style, text) for runs, style, text in _styled(shown)]
    draw_groups(axes, lines, variants[0].group_floors, name, measure=measure)
    draw_floor_by_group(axes, variants[0].floor_by_group, name)
    seeds = describe_seeds(variants[:1])
    set_title(figure, f"{_recipe(variants)}: {measure.name} on unseen examples by {name}")
    caption = f"{seeds}, whiskers from lowest to highest" + _explain_dashes(shown)
    add_legend(figure, axes, caption, columns=4 if len(lines) == 4 else 3)
    return figure


def draw_switched_off(variants: Sequence[Variant]) -> Figure | None:
    """Test scores by group of test-time training, and of the same weights without its steps."""
    base = variants[0]
    if base.runs[0].settings.get("sleep.consolidator.kind") != "ttt":
        return None
    lines: list[tuple[dict[str, Spread], dict[str, Any], str]] = []
    for passes, runs in base.by_passes.items():
        style = line_style(passes)
        lines.append((group_spreads(runs), style, f"N = {passes}"))
        if passes > 1 and all(1 in run.tests for run in runs):
            changes = {"linestyle": "--", "linewidth": 1.6, "markerfacecolor": "white"}
            lines.append((group_spreads(runs, 1), style | changes, f"N = {passes}, steps off"))
    figure = new_figure(8, 5.4)
    axes: Axes = figure.subplots()
    name = base.runs[0].summary["group_name"]
    draw_groups(axes, lines, base.group_floors, name, measure=base.measure)
    set_title(figure, f"{_recipe(variants)}: what the steps at test time do, by {name}")
    caption = f"{describe_seeds(variants[:1])}; broken lines: slept with N = 1 at test time"
    add_legend(figure, axes, caption, columns=4)
    return figure


def draw_passes(variants: Sequence[Variant]) -> Figure | None:
    """Heat map of the N trained with against the N slept with at test time."""
    matrix = passes_matrix(variants[0])
    if max(len(row) for row in matrix.values()) < 2:
        return None
    trained, tested = list(matrix), sorted({count for row in matrix.values() for count in row})
    figure = new_figure(1.6 + 1.1 * max(4, len(tested)), 1.9 + 0.75 * len(trained))
    axes: Axes = figure.subplots()
    cells = [[matrix[row].get(column, float("nan")) for column in tested] for row in trained]
    measure = variants[0].measure
    limits: dict[str, Any] = {"vmin": 0, "vmax": 1} if measure.is_share else {}
    colours = "Blues" if measure.is_share else "Blues_r"
    image: Any = axes.imshow(cells, cmap=colours, aspect="auto", **limits)
    for y, row in enumerate(trained):
        for x, column in enumerate(tested):
            if column in matrix[row]:
                shade = image.norm(matrix[row][column])
                axes.text(
                    x,
                    y,
                    measure.show(matrix[row][column]),
                    ha="center",
                    va="center",
                    color="white" if (shade if measure.is_share else 1 - shade) > 0.6 else "black",
                    weight="bold" if row == column else "normal",
                )
    axes.set_xticks(range(len(tested)), [str(count) for count in tested])
    axes.set_yticks(range(len(trained)), [str(count) for count in trained])
    axes.set_xlabel("N slept with at test time")
    axes.set_ylabel("N trained with")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    seeds = describe_seeds(variants[:1])
    set_title(figure, f"{_recipe(variants)}: sleeping with another N than trained")
    axes.set_title(f"{measure.name} on unseen examples, {seeds}; bold: as trained", fontsize=9)
    return figure


def draw_accuracy_by_steps(variants: Sequence[Variant]) -> Figure | None:
    """Final exact match against the task's steps t, where runs differ in it."""
    found = by_task_steps(variants)
    if not found:
        return None
    figure = new_figure(7, 4.8)
    axes: Axes = figure.subplots()
    for passes in sorted({run.passes for variant in found.values() for run in variant.runs}):
        spreads = {
            steps: Spread.of([run.exact for run in variant.by_passes[passes]])
            for steps, variant in found.items()
            if passes in variant.by_passes
        }
        draw_spreads(axes, spreads, line_style(passes), f"N = {passes}")
    for name in variants[0].floors:
        values = [variant.floors[name] for variant in found.values()]
        axes.plot(list(found), values, **FLOOR_STYLE)
    label_floors(axes, found[max(found)].floors)
    axes.set_xticks(list(found))
    axes.set_xlabel("t, steps between what is read and what is asked")
    axes.set_ylabel("exact match")
    make_plain(axes)
    seeds = describe_seeds(found.values())
    name = variants[0].runs[0].settings["name"]
    set_title(figure, f"{name}: exact match on unseen examples by t")
    caption = f"{seeds} for each point, whiskers from lowest to highest"
    add_legend(figure, axes, caption, columns=4)
    return figure


def draw_variants(variants: Sequence[Variant]) -> Figure | None:
    """One row for each variant and trained N: final test scores, every seed a dot."""
    if len(variants) == 1:
        return None
    measure = variants[0].measure
    rows = [(v, passes, runs) for v in variants for passes, runs in v.by_passes.items()]
    figure = new_figure(9, 1.6 + 0.32 * len(rows))
    axes: Axes = figure.subplots()
    for y, (variant, passes, runs) in enumerate(rows):
        style: dict[str, Any] = line_style(passes) | {"linestyle": "none"}
        mean = Spread.of([run.score for run in runs]).mean
        axes.plot([run.score for run in runs], [y] * len(runs), **style)
        axes.plot([mean], [y], "|", color=style["color"], markersize=15, markeredgewidth=2.5)
        for value in variant.floors.values():
            axes.plot([value, value], [y - 0.5, y + 0.5], **FLOOR_STYLE)
        beside: Any = axes.get_yaxis_transform()
        axes.text(1.02, y, measure.show(mean), va="center", fontsize=9, transform=beside)
    axes.set_yticks(range(len(rows)), [f"{v.name}, N = {passes}" for v, passes, _ in rows])
    axes.invert_yaxis()
    axes.set_xlabel(f"{measure.name} on unseen examples")
    make_plain(axes, "x", measure=measure)
    name = variants[0].runs[0].settings["name"]
    set_title(figure, f"{name}: what a change of the recipe does")
    seeds = describe_seeds(variants)
    axes.set_title(f"every seed a mark; bar and number: {seeds}; dotted: floors", fontsize=9)
    return figure


FIGURES: dict[str, Callable[[Sequence[Variant]], Figure | None]] = {
    "learning-curves.png": draw_learning_curves,
    "by-group.png": draw_by_group,
    "switched-off.png": draw_switched_off,
    "passes.png": draw_passes,
    "accuracy-by-steps.png": draw_accuracy_by_steps,
    "variants.png": draw_variants,
}


def _styled(variants: Sequence[Variant]) -> Iterator[tuple[list[Run], dict[str, Any], str]]:
    """The runs, style and label of every line: the base is bold, other variants are dashed."""
    for index, variant in enumerate(variants):
        for passes, runs in variant.by_passes.items():
            style, label = line_style(passes), f"N = {passes}"
            if index > 0:
                dash = DASHES[(index - 1) % len(DASHES)]
                style |= {"linestyle": dash, "linewidth": 1.6, "markerfacecolor": "white"}
                label = f"{label}, {variant.name}"
            yield runs, style, label


def _explain_dashes(shown: Sequence[Variant]) -> str:
    others = shown[1:]
    return f"; broken lines: other training, {describe_seeds(others)}" if others else ""


def _is_evaluated(variant: Variant) -> bool:
    return all(run.evaluations for run in variant.runs)


def _recipe(variants: Sequence[Variant]) -> str:
    """The recipe's name, with what other variants change of its task."""
    base = [text for key, text in base_settings(variants).items() if key.startswith("task.")]
    name = str(variants[0].runs[0].settings["name"])
    return f"{name} ({' '.join(base)})" if base else name
