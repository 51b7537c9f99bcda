"""What all figures share: colours, the parts of a plot that recur, and saving."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from slowwave.evaluation.measure import SHARE, Measure
from slowwave.lab.run_results import Spread, show_floors
from slowwave.storage.files import write_atomically
from slowwave.wording import say_how_to_install

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Line = tuple[Mapping[str, Spread], dict[str, Any], str]

Side = Literal["left", "right"]

DPI = 150
# Okabe and Ito's colours, told apart by colour-blind readers; markers repeat what colours say.
COLOURS = ("#7a7a7a", "#56b4e9", "#009e73", "#d55e00", "#0072b2", "#cc79a7")
MARKERS = ("o", "s", "^", "D", "v", "P")
_UPDATED = " updated"
# Kinds of groups: how their line is labelled, if it is, and what is changed of its style.
_KINDS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("line", "{}", {}),
    ("updated", "{}, updated", {"linestyle": "--", "linewidth": 1.6, "markerfacecolor": "white"}),
    ("apart", "", {"linestyle": "none"}),
)
FLOOR_STYLE: dict[str, Any] = {"color": "black", "linewidth": 1.0, "linestyle": (0, (1, 2))}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches. Raises ValueError if matplotlib is missing."""
    # A bare Figure needs no pyplot and no display, and is freed when it is dropped.
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ValueError(
            "matplotlib is not installed, so nothing can be drawn; " + say_how_to_install("plot")
        ) from None
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def save_figure(figure: Figure, path: Path) -> Path:
    """Writes a PNG, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(path, buffer.getvalue())
    return path


def line_style(passes: int) -> dict[str, Any]:
    """The colour and marker of a trained N, the same in all figures."""
    place = (passes - 1) % len(COLOURS)
    return {"color": COLOURS[place], "marker": MARKERS[place], "linewidth": 2.6, "markersize": 5}


def set_title(figure: Figure, title: str) -> None:
    """What the figure shows, above all panels."""
    figure.suptitle(title, fontsize=13, weight="bold")


def add_legend(figure: Figure, axes: Axes, caption: str, *, columns: int) -> None:
    """One legend below all panels, which share the lines of `axes`; the caption explains marks."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        title=caption,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9,
        title_fontsize=9,
        handlelength=3.5,
    )


def make_plain(
    axes: Axes, score_axis: Literal["x", "y"] = "y", *, measure: Measure = SHARE
) -> None:
    """Thin frame and grid; an axis of shares runs from 0 to 100%."""
    from matplotlib.ticker import PercentFormatter

    if measure.is_share:
        axis = axes.yaxis if score_axis == "y" else axes.xaxis
        axis.set_ticks([0, 0.2, 0.4, 0.6, 0.8, 1])
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set(**{f"{score_axis}lim": (0, 1.03)})
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def draw_groups(
    axes: Axes,
    lines: Sequence[Line],
    floors: Mapping[str, float],
    group_name: str,
    *,
    measure: Measure = SHARE,
) -> None:
    """Scores by group: (spreads by group, style, label) for every line.

    Groups that are numbers stand where they belong, others side by side. "4 updated" stands where
    "4" does, on a dashed line; beside distances, what is none ("never told") is on no line.
    """
    places = _place([group for spreads, _, _ in lines for group in spreads])
    for index, (spreads, style, label) in enumerate(lines):
        # A little apart, so that equal scores do not hide each other.
        shift = 0.05 * (index - (len(lines) - 1) / 2)
        for kind, naming, changes in _KINDS:
            of_kind = [group for group in places if _kind(group, places) == kind]
            placed = {places[group]: spreads[group] for group in of_kind if group in spreads}
            if placed:
                draw_spreads(axes, placed, style | changes, naming.format(label), shift=shift)
    names = {place: group.removesuffix(_UPDATED) for group, place in places.items()}
    slant = {} if all(map(str.isdigit, names.values())) else {"rotation": 30, "ha": "right"}
    axes.set_xticks(list(names), list(names.values()), **slant)
    axes.set_xlabel(group_name)
    axes.set_ylabel(measure.name)
    draw_floors(axes, floors, side="left")
    make_plain(axes, measure=measure)


def _place(groups: Sequence[str]) -> dict[str, int]:
    """Where each group stands: numbers at their value, others in order, distances first."""
    bases = [group.removesuffix(_UPDATED) for group in groups]
    if all(map(str.isdigit, bases)):
        return {group: int(base) for group, base in zip(groups, bases, strict=True)}
    distances = sorted(set(filter(_is_distance, bases)), key=lambda b: int(b.partition("-")[0]))
    others = [base for base in dict.fromkeys(bases) if not _is_distance(base)]
    places = {base: place for place, base in enumerate([*distances, *others])}
    found = {group: places[base] for group, base in zip(groups, bases, strict=True)}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _kind(group: str, groups: Iterable[str]) -> str:
    if group.endswith(_UPDATED):
        return "updated"
    return "apart" if not _is_distance(group) and any(map(_is_distance, groups)) else "line"


def _is_distance(group: str) -> bool:
    """Whether a group is a number or a range, such as 4-7."""
    return group[:1].isdigit()


def draw_spreads(
    axes: Axes,
    spreads: Mapping[int, Spread],
    style: dict[str, Any],
    label: str,
    *,
    shift: float = 0.0,
) -> None:
    """A line of means with whiskers from the lowest to the highest."""
    axes.errorbar(
        [x + shift for x in spreads],
        [spread.mean for spread in spreads.values()],
        yerr=[
            [spread.mean - spread.low for spread in spreads.values()],
            [spread.high - spread.mean for spread in spreads.values()],
        ],
        capsize=3,
        elinewidth=1.2,
        label=label,
        **style,
    )


def draw_floors(axes: Axes, floors: Mapping[str, float], *, side: Side = "right") -> None:
    """A dotted line for each score that needs no reading, named above the highest."""
    for value in floors.values():
        axes.axhline(value, **FLOOR_STYLE)
    if floors:
        label_floors(axes, floors, side=side)


def draw_floor_by_group(axes: Axes, floors: Mapping[str, float], group_name: str) -> None:
    """A short dotted line at each group of `draw_groups`, all of which have floors of their own."""
    places = _place(list(floors))
    for group, value in floors.items():
        axes.plot([places[group] - 0.3, places[group] + 0.3], [value, value], **FLOOR_STYLE)
    if floors:
        axes.plot([], [], **FLOOR_STYLE, label=f"floor of each {group_name}")


def label_floors(axes: Axes, floors: Mapping[str, float], *, side: Side = "right") -> None:
    """Names all floors above the highest, since they often lie too close for a name each."""
    axes.annotate(
        f"floor: {show_floors(floors)}",
        (0.99 if side == "right" else 0.01, max(floors.values())),
        xycoords=("axes fraction", "data"),
        xytext=(0, 2),
        textcoords="offset points",
        ha=side,
        fontsize=8,
    )
