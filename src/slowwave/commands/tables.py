"""Tables in a terminal, as narrow as they can be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from slowwave.commands.printing import printable
from slowwave.console import PlainConsole

GAP = 2
LEAST_WIDTH = 12


def make_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Sequence[str] = (),
    wrapped: Sequence[str] = (),
    cut: str | None = None,
    title: str | None = None,
) -> Table:
    """A table of texts, which mean what they say.

    Cells of `wrapped` columns take several lines where there is no room, those of the column `cut`
    lose their ends, and all others are shown in full. right: columns aligned to the right.
    """
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
