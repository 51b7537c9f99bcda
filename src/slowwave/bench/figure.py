"""The benchmarks in one picture, drawn only from what they left on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from slowwave.evaluation.canvas import COLOURS, MARKERS, new_figure, save_figure, set_title
from slowwave.storage.files import read_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rows = list[dict[str, Any]]
WAKE = ("Awake, after a stream",)


def draw_benchmarks(folder: Path) -> Path:
    """Draws bench.png from the measurements in `folder`.

    Raises ValueError if there is none, or if matplotlib is missing.
    """
    names = ("op", "read", "sleep", "train", "wake")
    found = {name: _read_rows(folder / f"{name}.json") for name in names}
    if not any(found.values()):
        raise ValueError(f"{folder}: no measurements; run `slowwave bench all --out {folder}`")
    figure = new_figure(13, 4.6)
    set_title(figure, "slowwave beside its peers, and beside the machine")
    speeds, contexts, shares = figure.subplots(1, 3)
    _draw_speeds(speeds, found["op"] + found["read"])
    _draw_contexts(contexts, found["read"] + found["wake"])
    _draw_shares(shares, [row for name in names for row in found[name]])
    return save_figure(figure, folder / "bench.png")


def _read_rows(path: Path) -> Rows:
    if not path.exists():
        return []
    return [
        {**row, "section": section["title"]}
        for section in read_json(path)["sections"]
        for row in section["rows"]
    ]


def _draw_speeds(axes: Axes, rows: Rows) -> None:
    """How many times faster than the peer, for all that transformers was measured at."""
    compared = [
        row
        for row in rows
        if str(row["ratio_to"]).startswith("transformers") and row["by"] != row["ratio_to"]
    ]
    labels = [_label(row) for row in compared]
    axes.barh(labels, [1 / row["time_ratio"] for row in compared], color=COLOURS[4])
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("times as fast as transformers")
    axes.tick_params(axis="y", labelsize=6)
    axes.invert_yaxis()


def _label(row: dict[str, Any]) -> str:
    context = f" after {row['context']:,}" if row["context"] else ""
    return f"{row['section']}: {row['what']}{context}\n{row['by']}"


def _draw_contexts(axes: Axes, rows: Rows) -> None:
    """The time of the next tokens against what was read before."""
    growing = [
        {**row, "by": row["by"].split(",")[0] if row["section"] in WAKE else row["by"]}
        for row in rows
        if row["section"] in ("Growing contexts", *WAKE)
    ]
    lines = sorted({(row["what"], row["by"]) for row in growing})
    for i, (what, by) in enumerate(lines):
        points = [row for row in growing if (row["what"], row["by"]) == (what, by)]
        axes.plot(
            [row["context"] for row in points],
            [row["milliseconds"] for row in points],
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            label=f"{what}, {by}",
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("tokens read before")
    axes.set_ylabel("milliseconds")
    if lines:
        axes.legend(fontsize=7, frameon=False)


def _draw_shares(axes: Axes, rows: Rows) -> None:
    """The share of the machine's rate of matrix products."""
    counted = [row for row in rows if row["matmul_share"] is not None]
    axes.barh(
        [_label(row) for row in counted],
        [100 * row["matmul_share"] for row in counted],
        color=COLOURS[2],
    )
    axes.set_xlabel("% of the machine's matrix products per second")
    axes.tick_params(axis="y", labelsize=6)
    axes.invert_yaxis()
