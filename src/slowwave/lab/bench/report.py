"""Rows of a benchmark, and how people and programs read them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from slowwave.lab.bench.machine import Machine
from slowwave.lab.bench.timing import Times


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
    """`nbytes` over that of `ratio_to`, or over what was predicted: see the notes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A table of rows and what is to be said about it."""

    title: str
    rows: Sequence[Row]
    notes: Sequence[str] = ()


def timed_row(
    what: str,
    by: str,
    times: Times,
    *,
    calls: int = 1,
    reference: tuple[str, Times] | None = None,
    reference_calls: int = 1,
    machine: Machine | None = None,
    flops: float | None = None,
    moved_nbytes: float | None = None,
    **others: Any,
) -> Row:
    """A row with everything that follows from the times of `calls` pieces of work.

    reference: the name and the times of what is compared with, for `reference_calls` pieces.
    flops, moved_nbytes: operations and bytes of one piece; shares are of `machine`, in float32.
    """
    seconds = times.median / calls
    gflops = None if flops is None else flops / seconds / 1e9
    gbytes = None if moved_nbytes is None else moved_nbytes / seconds / 1e9
    ratios = None if reference is None else times.over(reference[1])
    return Row(
        what=what,
        by=by,
        milliseconds=1e3 * seconds,
        spread=times.spread,
        time_ratio=None if ratios is None else ratios.median * reference_calls / calls,
        ratio_spread=None if ratios is None else ratios.spread,
        ratio_to=None if reference is None else reference[0],
        gflops=gflops,
        matmul_share=None if gflops is None or machine is None else gflops / machine.float32_gflops,
        bandwidth_share=None
        if gbytes is None or machine is None
        else gbytes / machine.bandwidth_gbytes,
        **others,
    )


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
