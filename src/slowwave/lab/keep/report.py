"""How people see what memories kept: tables, and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from slowwave.lab.canvas import COLOURS, MARKERS, make_plain, new_figure, save_figure, set_title
from slowwave.lab.keep.memories import EMPTY, FOREIGN, FULL

Row = dict[str, Any]
FIGURE = "keep.png"
TITLES = {
    "facts": "Dense facts of a text, read and slept on as one window",
    "strangers": "What strangers told, asked for in other words after a restart",
    "continuation": "How a text goes on after its beginning was slept on, nats a token",
}


def list_tables(rows: Sequence[Row]) -> list[Table]:
    """A table a test, a line a row."""
    return [_make_table(test, found) for test in TITLES if (found := _pick(rows, test))]


def draw_keep(rows: Sequence[Row], folder: Path, title: str) -> Path | None:
    """Shares against bytes for facts, against windows for strangers; None if neither was run.

    Raises ValueError if matplotlib is missing.
    """
    tests = [test for test in ("facts", "strangers") if _pick(rows, test)]
    if not tests:
        return None
    figure = new_figure(6.4 * len(tests), 4.2)
    set_title(figure, title)
    for place, test in enumerate(tests, 1):
        axes = figure.add_subplot(1, len(tests), place)
        found = _pick(rows, test)
        across = "kept" if test == "facts" else "windows"
        _draw_lines(axes, found, across)
        make_plain(axes)
        axes.set_title("dense facts" if test == "facts" else "strangers", fontsize=10)
        if test == "facts":
            axes.set_xscale("log", base=2)
            shares = sorted({row["kept"] for row in found if row["kept"]})
            axes.set_xticks(shares, [f"1/{1 / each:.0f}" for each in shares])
            axes.set_xlabel("share of keys and values that stay")
        else:
            axes.set_xlabel("windows slept on")
        axes.legend(fontsize=8, frameon=False)
    return save_figure(figure, folder / FIGURE)


def _draw_lines(axes: Any, rows: Sequence[Row], across: str) -> None:
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        point = row[across]
        share = _share(row, next(iter(row["right"])))
        if row["memory"] in (FULL, EMPTY) and (across == "kept" or not point):
            style = "-" if row["memory"] == FULL else ":"
            axes.axhline(share, color="black", linewidth=1, linestyle=style, label=row["memory"])
        elif row["memory"] != FOREIGN:
            lines.setdefault(_name(row, across), []).append((point, share))
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
    for name in (*(kinds or ["nats"]), "kilobytes", "sleeps, s"):
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
        )
    return table
