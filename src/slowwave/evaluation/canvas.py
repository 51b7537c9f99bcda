"""What all figures share: colours, the parts of a plot that recur, and saving."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slowwave.evaluation.run_results import Spread
from slowwave.storage.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
# Okabe and Ito's colours, told apart by colour-blind readers; markers repeat what colours say.
COLOURS = ("#7a7a7a", "#56b4e9", "#009e73", "#d55e00", "#0072b2", "#cc79a7")
MARKERS = ("o", "s", "^", "D", "v", "P")
FLOOR = {"color": "black", "linewidth": 1.0, "linestyle": (0, (1, 2))}


def style(passes: int) -> dict[str, Any]:
    place = place(passes)
    return {
        "color": COLOURS[place],
        "linewidth": 2.6,
        "marker": MARKERS[place],
        "markersize": 5,
    }


def place(passes: int) -> int:
    return (passes - 1) % len(COLOURS)


def draw_groups(
    axes: Axes,
    lines: Sequence[tuple[Mapping[int, Spread], dict[str, Any], str]],
    floors: Mapping[str, float],
    group_name: str,
) -> None:
    """Lines side by side, a little apart so that whiskers and markers stay visible."""
    for index, (spreads, style, label) in enumerate(lines):
        offset = 0.07 * (index - (len(lines) - 1) / 2)
        draw_spreads(axes, spreads, style, label, offset)
    axes.set_xticks(sorted({group for spreads, _, _ in lines for group in spreads}))
    axes.set_xlabel(group_name)
    axes.set_ylabel("test exact match")
    draw_floors(axes, floors)
    tidy(axes)


def draw_spreads(
    axes: Axes,
    spreads: Mapping[int, Spread],
    style: dict[str, Any],
    label: str,
    offset: float = 0.0,
) -> None:
    x = [place + offset for place in spreads]
    means = [spread.mean for spread in spreads.values()]
    below = [spread.mean - spread.low for spread in spreads.values()]
    above = [spread.high - spread.mean for spread in spreads.values()]
    axes.errorbar(x, means, yerr=[below, above], capsize=3, elinewidth=1.2, label=label, **style)


def draw_floors(axes: Axes, floors: Mapping[str, float]) -> None:
    for name, value in floors.items():
        axes.axhline(value, **FLOOR)
        label_floor(axes, f"floor: {name} {value:.1%}", value, at=0.99)


def label_floor(axes: Axes, text: str, value: float, *, at: float) -> None:
    axes.annotate(
        text,
        (at, value),
        xycoords=("axes fraction", "data"),
        xytext=(0, 2),
        textcoords="offset points",
        ha="right",
        fontsize=8,
    )


def tidy(axes: Axes, percent: str = "y") -> None:
    from matplotlib.ticker import PercentFormatter

    axis = axes.yaxis if percent == "y" else axes.xaxis
    axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set(**{f"{percent}lim": (0, 1.03), f"{percent}ticks": [0, 0.2, 0.4, 0.6, 0.8, 1]})
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def title(figure: Figure, title: str, caption: str = "") -> None:
    figure.suptitle(title, fontsize=13, weight="bold")
    if caption:
        figure.supxlabel(caption, fontsize=9, color="#555555")


def new_figure(width: float, height: float) -> Figure:
    # A bare Figure needs no pyplot and no display, and is freed when it is dropped.
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ValueError(
            "matplotlib is not installed, so nothing can be drawn; install slowwave[plot]"
        ) from None
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def save(figure: Figure, path: Path) -> Path:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(path, buffer.getvalue())
    return path
