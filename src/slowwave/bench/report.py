"""Rows of a benchmark, and how people and programs read them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement; what does not apply is None."""

    what: str
    """The work that was done."""
    by: str
    """Who did it: a backend of ours, or a peer."""
    context: int | None = None
    """Tokens read before."""
    milliseconds: float | None = None
    """Median of one call."""
    spread: float | None = None
    """Half the distance between the quartiles, over the median."""
    ratio: float | None = None
    """Time over that of `ratio_to`, median of the ratios within each round."""
    ratio_to: str | None = None
    """The work or the worker that `ratio` compares with."""
    gflops: float | None = None
    """Counted operations per second, in 1e9."""
    matmul_share: float | None = None
    """`gflops` over the machine's rate of matrix products."""
    bandwidth_share: float | None = None
    """Bytes that must move at least once per second, over the machine's bandwidth."""
    nbytes: int | None = None
    """Bytes of memory: see the benchmark."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A table of rows and what is to be said about it."""

    title: str
    rows: Sequence[Row]
    notes: Sequence[str] = ()


def section_table(section: Section) -> Table:
    """One line a row; columns that no row fills are left out."""
    table = Table(title=section.title, caption=escape("\n".join(section.notes)))
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
        case (("spread" | "matmul_share" | "bandwidth_share"), float()):
            return f"{value:.1%}"
        case "gflops", float():
            return f"{value:,.1f}"
        case _, float():
            return f"{value:,.3f}"
        case _, int():
            return f"{value:,}"
        case _:
            return str(value)
