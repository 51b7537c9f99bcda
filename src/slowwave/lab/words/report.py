"""What notes save, as a table and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from slowwave.lab.canvas import COLOURS, MARKERS, make_plain, new_figure, save_figure, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]
FIGURE = "words.png"


def make_table(rows: Sequence[Row]) -> Table:
    """A line a row."""
    table = Table(title="Word problems, with notes written before the questions and without")
    for name in ("notes", "answer, at most", "questions", "right", "sleep", "answer", "cost"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            "yes" if row["notes"] else "no",
            str(row["budget"]),
            str(row["questions"]),
            f"{share(row):.1%}",
            f"{row['sleep_tokens']:,.0f}",
            f"{row['answer_tokens']:.1f}",
            f"{row['cost']:,.0f}",
        )
    table.caption = "sleep, answer: tokens; cost: of a question, answers counted ten times"
    return table


def draw_words(rows: Sequence[Row], folder: Path, title: str) -> Path:
    """Cost of a question by how many share a context, and right answers by tokens of an answer.

    Raises ValueError if matplotlib is missing.
    """
    figure = new_figure(9.6, 4.2)
    set_title(figure, title)
    cost, accuracy = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    most = max(row["budget"] for row in rows)
    last = max(row["questions"] for row in rows)
    _draw(cost, [row for row in rows if row["budget"] == most], "questions", lambda r: r["cost"])
    _draw(accuracy, [row for row in rows if row["questions"] == last], "answer_tokens", share)
    cost.set_xlabel("questions about one text")
    cost.set_ylabel("tokens a question, of an answer ten times")
    cost.set_ylim(bottom=0)
    accuracy.set_xlabel("tokens of an answer")
    make_plain(accuracy)
    accuracy.set_title("right answers", fontsize=10)
    cost.set_title("cost", fontsize=10)
    return save_figure(figure, folder / FIGURE)


def share(row: Row) -> float:
    """Of right answers."""
    return sum(row["right"].values()) / sum(row["of"].values())


def _draw(axes: Axes, rows: Sequence[Row], across: str, measure: Any) -> None:
    for place, has_notes in enumerate((False, True)):
        points = sorted((row[across], measure(row)) for row in rows if row["notes"] == has_notes)
        xs, ys = zip(*points, strict=True)
        label = "with notes" if has_notes else "text alone"
        axes.plot(xs, ys, label=label, color=COLOURS[place], marker=MARKERS[place])
    axes.legend(fontsize=8, frameon=False)
