"""Tables and figures of linear probes, drawn from what probe.json holds; see `probe.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from slowwave.lab.plots.canvas import (
    FLOOR_STYLE,
    line_style,
    make_plain,
    new_figure,
    save_figure,
    set_title,
)
from slowwave.storage.files import write_atomically
from slowwave.training.run_files import read_probe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PROBE_FILE = "probe.json"
PROBE_EXAMPLES = 4096
MODELS = ("trained", "untrained")
CELLS = {"first": "first cell", "all": "mean of all cells"}


def draw_probes(folder: Path, out: Path) -> list[Path]:
    """Draws all probes in or below `folder` into probe.png and probe.md of `out`.

    Returns what was written, nothing if there are no probes.
    """
    probes = {path.parent.name: read_probe(path) for path in sorted(folder.rglob(PROBE_FILE))}
    if not probes:
        return []
    text = "\n".join(f"## {name}\n\n{probe_table(found)}" for name, found in probes.items())
    write_atomically(out / "probe.md", text.encode())
    return [save_figure(draw_probe_figure(probes), out / "probe.png"), out / "probe.md"]


def probe_table(found: dict[str, Any]) -> str:
    """Markdown: one row for each state in sight and pass, one column for each number of steps."""
    steps = range(found["steps"] + 1)
    counts = found["examples"]
    head = ["windows since", "after pass", *(f"s = {s}" for s in steps)]
    text = (
        f"What a linear probe reads off {found['fast_weights']} fast weights, N = "
        f"{found['passes']}: cells of a slept state\ns steps later, on {counts['test']} unseen "
        f"examples; fitted to {counts['train']}. In brackets, the same of the\nuntrained model.\n"
    )
    for cells, title in CELLS.items():
        rows = [head, ["---:"] * len(head)]
        for since in range(len(found["answers"])):
            for n in range(found["passes"]):
                ours, control = (found[m][cells][n][since] for m in MODELS)
                scores = [f"{a:.1%} ({b:.1%})" for a, b in zip(ours, control, strict=True)]
                rows.append([str(since), str(n + 1), *scores])
            if cells == "first":
                answered = f"{found['answers'][since]:.1%}"
                rows.append([str(since), "answers", *[""] * found["steps"], answered])
        rows.append(["floor", "", *(f"{value:.1%}" for value in found["floor"][cells])])
        lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        text += f"\n{title}:\n\n{lines}\n"
    return text


def draw_probe_figure(probes: dict[str, dict[str, Any]]) -> Figure:
    """A column for each N and t, the mean over its runs: above the state slept on last, pass by
    pass; below all states at the end."""
    kinds = sorted({_kind(found) for found in probes.values()})
    figure = new_figure(1.5 + 4.5 * len(kinds), 8.5)
    panels = figure.subplots(2, len(kinds), sharey=True, squeeze=False)
    for (above, below), kind in zip(panels.T, kinds, strict=True):
        alike = [found for found in probes.values() if _kind(found) == kind]
        passes, steps, _ = kind
        name = f"N = {passes}, t = {steps}" + (f", {len(alike)} runs" if len(alike) > 1 else "")
        trained, untrained = (_mean([p[key]["first"] for p in alike]) for key in MODELS)
        above.set_title(f"{name}: the state slept on last", fontsize=10)
        for n in range(passes):
            lines = trained[n, 0], untrained[n, 0]
            _draw_pair(above, *lines, line_style(n + 1), f"after pass {n + 1}")
        below.set_title(f"{name}: all states, after the last pass", fontsize=10)
        for since in range(trained.shape[1]):
            label = f"{since} window{'' if since == 1 else 's'} later"
            lines = trained[-1, since], untrained[-1, since]
            _draw_pair(below, *lines, line_style(since + 1), label)
        for axes in (above, below):
            floor = _mean([p["floor"]["first"] for p in alike])
            axes.plot(floor, **FLOOR_STYLE, label="floor: likelier bit")
            axes.set_xticks(range(steps + 1))
            make_plain(axes)
            axes.legend(loc="lower left", fontsize=8, frameon=False)
        below.set_xlabel("s, steps that the first cell has evolved")
    for axes in panels[:, 0]:
        axes.set_ylabel("right, linear probe on unseen examples")
    set_title(figure, "What the fast weights hold (thin, broken: untrained)")
    return figure


def _kind(found: dict[str, Any]) -> tuple[int, int, int]:
    """Of a probe: N, t, and how many states it reads."""
    return found["passes"], found["steps"], len(found["answers"])


def _mean(runs: Sequence[Any]) -> npt.NDArray[np.float64]:
    """Nested lists of the same shape, averaged over runs."""
    return np.mean(runs, axis=0)


def _draw_pair(
    axes: Axes,
    trained: npt.NDArray[np.float64],
    untrained: npt.NDArray[np.float64],
    style: dict[str, Any],
    label: str,
) -> None:
    """The trained models' line, and thin the untrained ones'."""
    axes.plot(trained, **style, label=label)
    axes.plot(untrained, **style | {"linewidth": 1.0, "markersize": 3, "linestyle": "--"})
