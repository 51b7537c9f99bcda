"""The benchmarks in one picture, drawn only from what they left on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from slowwave.lab.canvas import COLOURS, MARKERS, new_figure, save_figure, set_title
from slowwave.storage.files import read_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rows = list[dict[str, Any]]
WAKE = ("Awake, after a stream",)
OTHERS = ("chunk", "reference", "transformers", "full attention", "optimizer")
"""What rows are by if not by the way that slowwave takes by itself; the start of it."""


def draw_benchmarks(folder: Path) -> Path:
    """Draws bench.png from the measurements in `folder`.

    Raises ValueError if there is none, or if matplotlib is missing.
    """
    names = ("op", "read", "sleep", "train", "wake")
    found = {name: _read_rows(folder / f"{name}.json") for name in names}
    if not any(found.values()):
        raise ValueError(f"{folder}: no measurements; run `slowwave bench all --out {folder}`")
    figure = new_figure(15, 5)
    set_title(figure, "slowwave beside its peers, and beside the machine")
    speeds, contexts, shares = figure.subplots(1, 3, width_ratios=(1, 1.1, 1))
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
        row for row in rows if str(row["ratio_to"]).startswith("transformers") and _is_ours(row)
    ]
    _draw_bars(axes, compared, [1 / row["time_ratio"] for row in compared], COLOURS[4])
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("times as fast as transformers")


def _label(row: dict[str, Any]) -> str:
    context = f" after {row['context']:,}" if row["context"] else ""
    section = row["section"].removeprefix("delta rule, ") if row["by"] == "native" else ""
    passes = row["by"].removeprefix("slowwave, ").removeprefix("native")
    return ", ".join(part for part in (section, row["what"] + context, passes) if part)


def _is_ours(row: dict[str, Any]) -> bool:
    return not row["by"].startswith(OTHERS)


def _draw_bars(axes: Axes, rows: Rows, lengths: list[float], colour: str) -> None:
    bars = axes.barh(range(len(rows)), lengths, color=colour)
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=7)
    axes.bar_label(bars, fmt="%.3g", fontsize=7, padding=2)
    axes.margins(x=0.12)
    axes.invert_yaxis()


def _draw_contexts(axes: Axes, rows: Rows) -> None:
    """The time of the next tokens against what was read before."""
    growing = [
        {**row, "by": f"endless, {row['by'].split(',')[0]}"} if row["section"] in WAKE else row
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
            marker=MARKERS[(i + i // len(COLOURS)) % len(MARKERS)],
            linestyle="--" if by.startswith("endless") else "-",
            label=f"{what}, {by}",
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("tokens read before")
    axes.set_ylabel("milliseconds")
    if lines:
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)


def _draw_shares(axes: Axes, rows: Rows) -> None:
    """The share of the machine's rate of matrix products."""
    counted = [row for row in rows if row["matmul_share"] is not None and _is_ours(row)]
    _draw_bars(axes, counted, [100 * row["matmul_share"] for row in counted], COLOURS[2])
    axes.set_xlabel("% of the rate of matrix products")
