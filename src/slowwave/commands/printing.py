"""Texts, times, sizes, sleeps and tables for people, and JSON for programs. A text steers no
terminal, whatever it holds."""

from __future__ import annotations

import dataclasses
import json
import time
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from slowwave.memory.sleep_report import DreamReport, SleepReport

LINE_END = "\u23ce"
GAP = 2
"""Columns between two of a table."""
LEAST_WIDTH = 12
"""Of a column that is cut."""


def printable(text: str) -> str:
    """A text without characters that would steer a terminal; ends of lines and tabs stay."""
    return "".join(
        "\ufffd" if unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t" else char
        for char in text
    )


def shorten(text: str, length: int) -> str:
    """The beginning of a text, in one line of at most `length` characters."""
    line = printable(text).rstrip("\n").replace("\n", LINE_END).replace("\t", " ")
    return line if len(line) <= length else line[: length - 1] + "\u2026"


def show_time(seconds: float) -> str:
    """A time in seconds since 1970, as local time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def show_bytes(count: int) -> str:
    """A number of bytes with three digits."""
    size = float(count)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def count(number: int, noun: str) -> str:
    """ "1 sleep", "2,000 sleeps"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def describe_sleep(report: SleepReport) -> str:
    """A sleep in one line: why, tokens, passes, time, and how much the fast weights changed; or why
    it was rejected."""
    if report.dream is not None:
        return describe_dream(report, report.dream)
    why = "window full" if report.trigger == "full" else report.trigger
    passes = "1 pass" if report.passes == 1 else f"{report.passes} passes"
    line = f"sleep {report.number:,} ({why}): {count(report.tokens, 'token')}, {passes}"
    line += f", {report.milliseconds:,.0f} ms"
    if report.is_rejected:
        assert report.verdict is not None
        left = "the window stays open" if report.is_undone else "one pass instead"
        return f"{line}, rejected, {left}: {'; '.join(report.verdict.reasons)}"
    if report.changes:
        line += f", fast weights changed by {show_changes(report.changes)}"
    return line


def describe_dream(report: SleepReport, dream: DreamReport) -> str:
    """A dream in one line: what was learned and what the critic kept out, or why it was
    rejected."""
    (before, after), (was, now) = dream.nll, dream.right
    line = f"dream: {count(dream.statements, 'statement')}, {count(dream.replayed, 'question')} in "
    line += f"{count(dream.steps, 'step')} ({dream.ended_by}), {report.milliseconds / 1000:,.1f} s"
    line += f", answers right {was:,} -> {now:,}, NLL {before:.2f} -> {after:.2f}"
    rise = dream.anchor_mean[1] / dream.anchor_mean[0] - 1
    line += f", held-out NLL {100 * rise:+.1f} %"
    if dream.refused:
        reasons = (f"{each.reason} ({each.count:,})" for each in dream.refused)
        line += f"; the critic refused: {', '.join(reasons)}"
    if report.is_rejected:
        assert report.verdict is not None
        line += f"; rejected, the memory stays: {'; '.join(report.verdict.reasons)}"
    return line


def show_changes(changes: Sequence[float]) -> str:
    """Shares as percent, from the layer that changed least to the one that changed most."""
    low, high = (f"{100 * change:,.3g}" for change in (min(changes), max(changes)))
    return f"{low} %" if low == high else f"{low} to {high} %"


def make_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Sequence[str] = (),
    wrapped: Sequence[str] = (),
    cut: str | None = None,
    title: str | None = None,
) -> Table:
    """A table of texts, in which no character is markup.

    Cells of `wrapped` columns take several lines where there is no room, cells of the column `cut`
    lose their ends, and all others are shown in full. right: columns aligned to the right.
    """
    from rich.cells import cell_len  # not at import: rich would slow down --help
    from rich.table import Table
    from rich.text import Text

    from slowwave.console import PlainConsole

    lines = [[printable(cell) for cell in line] for line in rows]
    widths = {
        name: max(cell_len(cell) for cell in (name, *(line[place] for line in lines)))
        for place, name in enumerate(columns)
    }
    if cut is not None:
        others = sum(width + GAP for name, width in widths.items() if name != cut)
        widths[cut] = min(widths[cut], max(LEAST_WIDTH, PlainConsole().width - others - GAP))
    table = Table(box=None, padding=(0, GAP, 0, 0), title=title, title_justify="left")
    for name, width in widths.items():
        table.add_column(
            name,
            justify="right" if name in right else "left",
            no_wrap=name not in wrapped,
            overflow="fold" if name in wrapped else "ellipsis",
            min_width=None if name in wrapped else width,
            max_width=width if name == cut else None,
        )
    for line in lines:
        table.add_row(*map(Text, line))
    return table


def print_parts(*parts: RenderableType) -> None:
    """Prints tables, and texts in lines as long as they are."""
    from slowwave.console import PlainConsole

    console = PlainConsole()
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str))


def print_json(value: Any) -> None:
    """One JSON document in one line, at once."""
    print(json.dumps(to_json(value), allow_nan=False), flush=True)


def to_json(value: Any) -> Any:
    """A value as JSON has it: dataclasses and named tuples become objects."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple) and (names := getattr(value, "_fields", None)):
        value = dict(zip(names, value, strict=True))
    if isinstance(value, dict):
        return {key: to_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(part) for part in value]
    return value
