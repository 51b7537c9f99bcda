"""Rows of a benchmark, and how people see them: tables, and one picture of all records."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from slowwave.lab.bench.measure import Machine, Times
from slowwave.lab.canvas import COLOURS, MARKERS, new_figure, save_figure, set_title
from slowwave.storage.json_files import read_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Records = list[dict[str, Any]]
WAKE = "Awake, after a stream"
OTHERS = ("chunk", "reference", "transformers", "full attention", "optimizer")
"""Beginnings of what rows are by where it is not the way that slowwave takes by itself."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement; what does not apply is None."""

    what: str
    """The work that was done."""
    by: str
    """Who did it: a backend of ours, or a peer."""
    count: int | None = None
    """Of what is counted rather than timed."""
    context: int | None = None
    """Tokens read before."""
    milliseconds: float | None = None
    """Median of one call."""
    spread: float | None = None
    """Half the distance between the quartiles, over the median."""
    time_ratio: float | None = None
    """Time over that of `ratio_to`, median of the ratios within each round."""
    ratio_spread: float | None = None
    """The spread of these ratios."""
    ratio_to: str | None = None
    """The work or the worker that is compared with."""
    gflops: float | None = None
    """Counted operations per second, in 1e9."""
    matmul_share: float | None = None
    """`gflops` over the machine's rate of matrix products."""
    bandwidth_share: float | None = None
    """Bytes that must move at least once per second, over the machine's bandwidth."""
    nbytes: int | None = None
    """Bytes of memory: see the notes."""
    memory_ratio: float | None = None
    """`nbytes` over that of `ratio_to`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A table of rows and what is to be said about it."""

    title: str
    rows: Sequence[Row]
    notes: Sequence[str] = ()


def timed_row(
    what: str,
    by: str,
    times: Mapping[str, Times],
    *,
    reference: str | None = None,
    calls: int = 1,
    machine: Machine | None = None,
    flops: float | None = None,
    moved_nbytes: float | None = None,
    **others: Any,
) -> Row:
    """A row with everything that follows from times of `calls` pieces of work each.

    times: of `by` and, if it was timed, of what it is compared with, `reference`. flops,
    moved_nbytes: operations and bytes of one piece; shares are of `machine`, in float32.
    """
    seconds = times[by].median / calls
    row: dict[str, Any] = {"milliseconds": 1e3 * seconds, "spread": times[by].spread, **others}
    if reference is not None and reference in times:
        ratios = times[by].over(times[reference])
        row |= {"time_ratio": ratios.median, "ratio_spread": ratios.spread, "ratio_to": reference}
    if flops is not None:
        row["gflops"] = flops / seconds / 1e9
        if machine is not None:
            row["matmul_share"] = row["gflops"] / machine.float32_gflops
    if moved_nbytes is not None and machine is not None:
        row["bandwidth_share"] = moved_nbytes / seconds / 1e9 / machine.bandwidth_gbytes
    return Row(what=what, by=by, **row)


def section_table(section: Section) -> Table:
    """One line a row; columns that no row fills are left out."""
    table = Table(title=section.title, caption="\n".join(section.notes))
    rows = [dataclasses.asdict(row) for row in section.rows]
    used = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    for name in used:
        justify = "left" if name in ("what", "by", "ratio_to") else "right"
        table.add_column(name.replace("_", " "), justify=justify)
    for row in rows:
        table.add_row(*(_show(name, row[name]) for name in used))
    return table


def _show(name: str, value: Any) -> str:
    match name, value:
        case _, None:
            return ""
        case (("spread" | "ratio_spread" | "matmul_share" | "bandwidth_share"), float()):
            return f"{value:.1%}"
        case "gflops", float():
            return f"{value:,.1f}"
        case _, float():
            return f"{value:,.3f}"
        case _, int():
            return f"{value:,}"
        case _:
            return str(value)


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


def _read_rows(path: Path) -> Records:
    """The rows of a record, each with the title of its section; none if there is no record."""
    if not path.exists():
        return []
    return [
        {**row, "section": section["title"]}
        for section in read_json(path)["sections"]
        for row in section["rows"]
    ]


def _draw_speeds(axes: Axes, rows: Records) -> None:
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


def _draw_bars(axes: Axes, rows: Records, lengths: list[float], colour: str) -> None:
    bars = axes.barh(range(len(rows)), lengths, color=colour)
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=7)
    axes.bar_label(bars, fmt="%.3g", fontsize=7, padding=2)
    axes.margins(x=0.12)
    axes.invert_yaxis()


def _draw_contexts(axes: Axes, rows: Records) -> None:
    """The time of the next tokens against what was read before."""
    growing = [
        {**row, "by": f"endless, {row['by'].split(',')[0]}"} if row["section"] == WAKE else row
        for row in rows
        if row["section"] in ("Growing contexts", WAKE)
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


def _draw_shares(axes: Axes, rows: Records) -> None:
    """The share of the machine's rate of matrix products."""
    counted = [row for row in rows if row["matmul_share"] is not None and _is_ours(row)]
    _draw_bars(axes, counted, [100 * row["matmul_share"] for row in counted], COLOURS[2])
    axes.set_xlabel("% of the rate of matrix products")
