"""What figures draw of their own, from what is recorded: learning curves and retests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slowwave.config import flatten
from slowwave.lab.canvas import (
    FLOOR_STYLE,
    add_legend,
    draw_floor_by_group,
    draw_floors,
    draw_groups,
    draw_spreads,
    line_style,
    make_plain,
    new_figure,
    set_title,
)
from slowwave.lab.reproduction.figures import FigureConfig, PointsConfig, Scale
from slowwave.lab.reproduction.retests import PlannedRetest, find_retested
from slowwave.lab.run_results import (
    Run,
    Spread,
    Variant,
    describe_seeds,
    find_variants,
    group_spreads,
    markdown_rows,
    mean_curve,
    show_floors,
    show_spread,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# How the paper writes a setting.
SYMBOLS = {"task.steps": "t", "sleep.passes": "N"}
PASSES = "sleep.passes"
POINT_STYLE: dict[str, Any] = {"linestyle": ":", "linewidth": 1.2, "markerfacecolor": "white"}
MAX_COLUMNS = 4
TRAINED_STYLE: dict[str, Any] = {"color": "#bbbbbb", "linewidth": 6.0, "alpha": 0.5, "zorder": 0}


def draw_curves(figure: FigureConfig, scale: Scale, runs: Sequence[Run]) -> Figure:
    """The validation curves of finished runs; at the paper's scale also the paper's own.

    Colours go by the value of `figure.curve_by`, those of N as in all figures.
    """
    points = figure.points if scale == "paper" else ()
    key = figure.curve_by
    found: dict[Any, list[Run]] = {}
    for run in runs:
        found.setdefault(run.settings[key], []).append(run)
    values = sorted(set(found) | {_value(point, key) for point in points})
    drawing = new_figure(9, 5.6)
    axes: Axes = drawing.subplots()
    for place, value in enumerate(values, 1):
        style = line_style(value if key == PASSES else place)
        label = f"{SYMBOLS.get(key, key)} = {value}"
        if value in found:
            curve = mean_curve(found[value])
            axes.plot([t / 1e6 for t in curve.tokens], curve.scores, **style, label=label)
        for point in points:
            if _value(point, key) == value:
                x = [tokens / 1e6 for tokens in point.tokens]
                axes.plot(x, point.exact, **(style | POINT_STYLE), label=f"paper, {label}")
    variants = [variant for runs in found.values() for variant in find_variants(runs)]
    hardest = found[max(found)]
    draw_floors(axes, find_variants(hardest)[0].floors)
    axes.set_xlabel("training tokens (millions)")
    axes.set_ylabel("validation exact match")
    axes.set_xlim(left=0)
    make_plain(axes)
    set_title(drawing, figure.title)
    caption = f"{hardest[0].settings['name']}: {describe_seeds(variants)}"
    if points:
        caption += f"; hollow, dotted: {figure.source}"
    add_legend(drawing, axes, caption, columns=4)
    return drawing


def gather_retests(retests: Sequence[PlannedRetest]) -> dict[str, Variant]:
    """The recorded runs of every test, by its name; tests that are not recorded are left out.

    The runs of a test differ in seed and trained N alone.
    """
    found: dict[str, list[Run]] = {}
    for retest in retests:
        found.setdefault(retest.name, []).extend(find_retested(retest))
    gathered: dict[str, Variant] = {}
    for name, runs in found.items():
        if runs:
            (gathered[name],) = find_variants(runs)
    return gathered


def draw_retests(
    figure: FigureConfig, tests: Mapping[str, Variant], trained: Mapping[str, Any]
) -> Figure:
    """The tests of a figure, see `FigureConfig.retests_by`. trained: the settings of a run."""
    if figure.retests_by:
        return _draw_along(figure, list(tests.values()), trained)
    return _draw_by_group(figure, tests)


def retest_table(tests: Mapping[str, Variant]) -> str:
    """One row for each test, trained N and N slept with, in Markdown."""
    groups = dict.fromkeys(
        group for variant in tests.values() for run in variant.runs for group in run.groups
    )
    group_name = next(iter(tests.values())).runs[0].summary["group_name"]
    columns = ["test", "trained N", "slept with N", "seeds", "exact", "sampled", "token"]
    columns += [f"{group_name} {group}" for group in groups]
    rows = [[*columns, "floors"], ["---", *["---:"] * (len(columns) - 1), "---"]]
    for name, variant in tests.items():
        for trained, runs in variant.by_passes.items():
            for tested in sorted(set.intersection(*(set(run.tests) for run in runs))):
                rows.append(
                    [
                        *(name, str(trained), str(tested), str(len(runs))),
                        *(
                            show_spread(_overall(runs, tested, score))
                            for score in ("exact", "sampled", "token_accuracy")
                        ),
                        *(_group_cell(runs, tested, group) for group in groups),
                        show_floors(runs[0].summary["floors"]),
                    ]
                )
    return (
        "Trained runs with their task changed: scores on unseen test examples, mean over seeds,\n"
        "lowest and highest in brackets. exact: greedy exact match; sampled: the probability of\n"
        "drawing the whole answer; token: single tokens.\n"
        f"\n{markdown_rows(rows)}\n"
    )


def _draw_along(
    figure: FigureConfig, variants: Sequence[Variant], trained: Mapping[str, Any]
) -> Figure:
    """Exact match along a field of the task: a panel a trained N, a line an N slept with."""
    key = f"task.{figure.retests_by}"
    found = {variant.runs[0].settings[key]: variant for variant in variants}
    values = {value: found[value] for value in sorted(found)}
    counts = sorted({run.passes for variant in variants for run in variant.runs})
    drawing = new_figure(1 + 4.5 * len(counts), 5.2)
    panels: list[Axes] = list(drawing.subplots(1, len(counts), sharey=True, squeeze=False)[0])
    for axes, count in zip(panels, counts, strict=True):
        runs = {value: variant.by_passes.get(count, []) for value, variant in values.items()}
        for tested in sorted({n for each in runs.values() for run in each for n in run.tests}):
            spreads = {
                value: _overall(each, tested, "exact") for value, each in runs.items() if each
            }
            style = line_style(tested) | ({} if tested == count else {"linewidth": 1.2})
            draw_spreads(axes, spreads, style, f"slept with N = {tested}")
        for name in variants[0].floors:
            floors = [variant.floors[name] for variant in values.values()]
            axes.plot(list(values), floors, **FLOOR_STYLE)
        axes.axvline(trained[key], **TRAINED_STYLE)
        axes.set_xticks(list(values))
        axes.set_xlabel(f"{SYMBOLS.get(key, key)} at test")
        axes.set_title(f"trained with N = {count}", fontsize=10)
        make_plain(axes)
    panels[0].set_ylabel("exact match on unseen examples")
    set_title(drawing, f"{variants[0].runs[0].settings['name']}: {figure.title}")
    symbol = f"{SYMBOLS.get(key, key)} = {trained[key]}"
    floors = ", ".join(variants[0].floors)
    caption = f"{describe_seeds(variants)}; grey: trained with {symbol}; dotted: floors ({floors})"
    add_legend(drawing, panels[-1], caption, columns=3)
    return drawing


def _draw_by_group(figure: FigureConfig, tests: Mapping[str, Variant]) -> Figure:
    """Exact match by group: a panel a test, a line a trained N."""
    columns = min(MAX_COLUMNS, len(tests))
    rows = math.ceil(len(tests) / columns)
    drawing = new_figure(1 + 4 * columns, 1 + 3.6 * rows)
    panels: list[Axes] = list(drawing.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[len(tests) :]:
        axes.set_axis_off()
    for axes, (name, variant) in zip(panels, tests.items(), strict=False):
        lines = [
            (group_spreads(runs), line_style(count), f"N = {count}")
            for count, runs in variant.by_passes.items()
        ]
        group_name = variant.runs[0].summary["group_name"]
        draw_groups(axes, lines, variant.group_floors, group_name, measure=variant.measure)
        draw_floor_by_group(axes, variant.floor_by_group, group_name)
        axes.set_title(name, fontsize=10)
    first = next(iter(tests.values())).runs[0]
    set_title(drawing, f"{first.settings['name']}: {figure.title}")
    caption = f"{describe_seeds(tests.values())}, whiskers from lowest to highest"
    add_legend(drawing, panels[0], caption, columns=4)
    return drawing


def _overall(runs: Sequence[Run], tested: int, score: str) -> Spread:
    return Spread.of([run.tests[tested]["overall"][score] for run in runs])


def _group_cell(runs: Sequence[Run], tested: int, group: str) -> str:
    """Exact match inside a group, empty if the test has none of it."""
    if group not in runs[0].groups:
        return ""
    return show_spread(Spread.of([run.tests[tested]["groups"][group]["exact"] for run in runs]))


def _value(points: PointsConfig, key: str) -> Any:
    return flatten(points.where)[key]
