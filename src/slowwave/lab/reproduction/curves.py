"""Exact match against training tokens, a curve for each value of a setting, beside the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from slowwave.config import flatten
from slowwave.lab.canvas import (
    add_legend,
    draw_floors,
    line_style,
    make_plain,
    new_figure,
    set_title,
)
from slowwave.lab.reproduction.figures import FigureConfig, PointsConfig, Scale
from slowwave.lab.run_results import Run, describe_seeds, find_variants, mean_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# How the paper writes a setting.
SYMBOLS = {"task.steps": "t", "sleep.passes": "N"}
PASSES = "sleep.passes"
POINT_STYLE: dict[str, Any] = {"linestyle": ":", "linewidth": 1.2, "markerfacecolor": "white"}


def draw_curves(figure: FigureConfig, scale: Scale, runs: Sequence[Run]) -> Figure:
    """The validation curves of finished runs; at the paper's scale also the paper's own.

    Colours go by the value of `figure.curve_by`, those of N as in all figures.
    """
    points = figure.points if scale == "paper" else ()
    key = figure.curve_by
    found = _by_value(runs, key)
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
    hardest = found[max(found)]
    draw_floors(axes, find_variants(hardest)[0].floors)
    axes.set_xlabel("training tokens (millions)")
    axes.set_ylabel("validation exact match")
    axes.set_xlim(left=0)
    make_plain(axes)
    set_title(drawing, figure.title)
    caption = f"{hardest[0].settings['name']}: {describe_seeds(list(found.values()))}"
    if points:
        caption += f"; hollow, dotted: {figure.source}"
    add_legend(drawing, axes, caption, columns=4)
    return drawing


def _by_value(runs: Sequence[Run], key: str) -> dict[Any, list[Run]]:
    found: dict[Any, list[Run]] = {}
    for run in runs:
        found.setdefault(run.settings[key], []).append(run)
    return found


def _value(points: PointsConfig, key: str) -> Any:
    return flatten(points.where)[key]
