"""How people see what memories kept: tables, and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from slowwave.lab.canvas import COLOURS, MARKERS, make_plain, new_figure, save_figure, set_title
from slowwave.lab.keep.memories import FOREIGN, FULL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]
FIGURE = "keep.png"
PANELS = (
    ("facts", "kept", "right", "dense facts, right"),
    ("strangers", "windows", "right", "what strangers told, right"),
    ("strangers", "windows", "kilobytes", "memory, kilobytes"),
    ("strangers", "windows", "token_ms", "a token, milliseconds"),
)
"""The test, what is across, what is measured, and what the panel is called."""
TITLES = {
    "facts": "Dense facts of a text, read and slept on as one window",
    "strangers": "What strangers told, asked for in other words after a restart",
    "continuation": "How a text goes on after its beginning was slept on, nats a token",
}


def list_tables(rows: Sequence[Row]) -> list[Table]:
    """A table a test, a line a row."""
    return [_make_table(test, found) for test in TITLES if (found := _pick(rows, test))]


def draw_keep(rows: Sequence[Row], folder: Path, title: str) -> Path | None:
    """Right answers about facts by what stays; about what strangers told, bytes and the time of a
    token by windows. None if neither was run. Raises ValueError if matplotlib is missing."""
    panels = [panel for panel in PANELS if _pick(rows, panel[0])]
    if not panels:
        return None
    figure = new_figure(4.6 * len(panels), 4.2)
    set_title(figure, title)
    for place, (test, across, measure, label) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), place)
        _draw_lines(axes, _pick(rows, test), across, measure)
        if across == "kept":
            axes.set_xscale("log", base=2)
            shares = sorted({row["kept"] for row in _pick(rows, test) if row["kept"]})
            axes.set_xticks(shares, [f"1/{1 / each:.0f}" for each in shares])
        if measure == "right":
            make_plain(axes)
        else:
            axes.set_ylim(bottom=0)
            axes.grid(True, color="#dddddd", linewidth=0.6)
        axes.set_xlabel("keys and values that stay" if across == "kept" else "windows slept on")
        axes.set_title(label, fontsize=10)
        axes.legend(fontsize=8, frameon=False)
    return save_figure(figure, folder / FIGURE)


def _draw_lines(axes: Axes, rows: Sequence[Row], across: str, measure: str) -> None:
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        value = _share(row, next(iter(row["right"]))) if measure == "right" else row[measure]
        if row["memory"] == FOREIGN or not (row[across] or measure == "right"):
            continue
        if row[across]:
            lines.setdefault(_name(row, across), []).append((row[across], value))
        else:
            style = "-" if row["memory"] == FULL else ":"
            axes.axhline(value, color="black", linewidth=1, linestyle=style, label=row["memory"])
    for place, (name, points) in enumerate(lines.items()):
        place %= len(COLOURS)
        xs, ys = zip(*sorted(points), strict=True)
        axes.plot(xs, ys, label=name, color=COLOURS[place], marker=MARKERS[place])


def _name(row: Row, across: str) -> str:
    name = row["memory"]
    if row["kept"] and across != "kept":
        name += f" 1/{1 / row['kept']:.0f}"
    return name if row["memory"] == FULL or row["passes"] <= 2 else f"{name}, N = {row['passes']}"


def _pick(rows: Sequence[Row], test: str) -> list[Row]:
    return [row for row in rows if row["test"] == test]


def _share(row: Row, kind: str) -> float:
    return row["right"][kind] / row["of"][kind]


def _make_table(test: str, rows: Sequence[Row]) -> Table:
    table = Table(title=TITLES[test])
    kinds = [*rows[0].get("of", {})]
    for name in ("memory", "N", "kept", "windows"):
        table.add_column(name, justify="left" if name == "memory" else "right")
    times = ["token, ms"] if "windows" in rows[0] and kinds else []
    for name in (*(kinds or ["nats"]), "kilobytes", "sleeps, s", *times):
        table.add_column(name, justify="right")
    for row in rows:
        kept = f"1/{1 / row['kept']:.0f}" if row["kept"] else "-"
        scores = [f"{_share(row, kind):.1%}" for kind in kinds] or [f"{row['nats']:.3f}"]
        table.add_row(
            row["memory"],
            str(row["passes"]),
            kept,
            str(row.get("windows", "-")),
            *scores,
            f"{row['kilobytes']:,}",
            f"{row['seconds']:.1f}",
            *(f"{row['token_ms']:.1f}" for _ in times),
        )
    return table
