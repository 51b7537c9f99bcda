"""Figures of one model's memory: a stream that fell asleep, and linear probes of fast weights.

Drawn from stream.json (see `stream_trace.py`) and probe.json (see `probe.py`); torch-free.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slowwave.lab.canvas import (
    FLOOR_STYLE,
    draw_groups,
    line_style,
    make_plain,
    new_figure,
    save_figure,
    set_title,
)
from slowwave.lab.run_results import Spread, markdown_rows
from slowwave.storage.files import write_atomically
from slowwave.training.run_files import read_probe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

CACHE_COLOUR = "#56b4e9"
FAST_COLOUR = "#d55e00"
LAYER_COLOURS = ("#d55e00", "#e69f00", "#8c3d00", "#f0c27a", "#b8860b", "#5c2a00")
PROBE_FILE = "probe.json"
PROBE_EXAMPLES = 4096
MODELS = ("trained", "untrained")
CELLS = {"first": "first cell", "all": "mean of all cells"}


def draw_stream(stream: dict[str, Any]) -> Figure:
    """The window and the cache above, the writes of each pass below."""
    figure = new_figure(8, 6.6)
    top, bottom = figure.subplots(2, 1, height_ratios=[1.2, 1])
    _draw_cache(top, stream)
    _draw_writes(bottom, stream)
    set_title(figure, "One stream: the window fills, the model sleeps, the cache is dropped")
    return figure


def draw_demo(
    stream: dict[str, Any],
    scores: Mapping[int, Mapping[str, Spread]],
    floors: Mapping[str, float],
    *,
    group_name: str,
    caption: str,
) -> Figure:
    """A stream, the writes of its sleep, and exact match by group for every N."""
    figure = new_figure(15, 4.8)
    left, middle, right = figure.subplots(1, 3)
    _draw_cache(left, stream)
    _draw_writes(middle, stream)
    lines = [(spreads, line_style(passes), f"N = {passes}") for passes, spreads in scores.items()]
    draw_groups(right, lines, floors, group_name)
    right.set_title("answers after the sleep, without the cache", fontsize=11)
    figure.legend(*right.get_legend_handles_labels(), loc="outside right center", frameon=False)
    set_title(figure, f"A language model reads, sleeps, drops its cache, and answers ({caption})")
    return figure


def cache_steps(stream: dict[str, Any]) -> tuple[list[int], list[int], list[int], list[int]]:
    """Tokens read, and at each point tokens in the window, bytes of cache and of fast weights.

    A sleep is a second point at its number of tokens, so that lines fall straight.
    """
    events = stream["events"]
    tokens, fill, cache, fast = [0], [0], [0], [events[0]["fast_weights_nbytes"]]
    for event in events:
        slept = event["kind"] == "sleep"
        tokens.append(event["tokens_seen"])
        fill.append(0 if slept else event["window_fill"])
        cache.append(event["cache_nbytes_after" if slept else "cache_nbytes"])
        fast.append(event["fast_weights_nbytes_after" if slept else "fast_weights_nbytes"])
    return tokens, fill, cache, fast


def mean_changes(stream: dict[str, Any]) -> dict[int, list[float]]:
    """By recurrent layer, the norm of the change that pass 1, 2, ... made, mean over all sleeps."""
    sleeps = _find_sleeps(stream)
    if not sleeps:
        return {}
    layers = [write["layer"] for write in sleeps[0]["writes"][0]]
    return {
        layer: [
            statistics.fmean(sleep["writes"][n][place]["change"] for sleep in sleeps)
            for n in range(sleeps[0]["passes"])
        ]
        for place, layer in enumerate(layers)
    }


def _find_sleeps(stream: dict[str, Any]) -> list[dict[str, Any]]:
    return [event for event in stream["events"] if event["kind"] == "sleep"]


def _draw_cache(axes: Axes, stream: dict[str, Any]) -> None:
    tokens, fill, cache, fast = cache_steps(stream)
    # A little further than the last sleep, or its drop would lie on the frame.
    end = tokens[-1] * 1.15
    axes.fill_between(
        [*tokens, end],
        [count / 1e3 for count in (*cache, cache[-1])],
        color=CACHE_COLOUR,
        alpha=0.55,
        label="attention cache (kB)",
    )
    axes.plot(
        [*tokens, end],
        [count / 1e3 for count in (*fast, fast[-1])],
        color=FAST_COLOUR,
        linewidth=2.2,
        label="fast weights (kB)",
    )
    counts = axes.twinx()
    counts.plot(
        tokens, fill, color="black", linewidth=1, marker=".", markersize=4, label="tokens in window"
    )
    # Both scales meet where the cache is largest, or two lines would show one thing.
    top = max(*cache, *fast) * 1.35
    counts.set_ylim(0, max(fill) * top / (max(cache) or top))
    counts.set_ylabel("tokens in window")
    counts.spines["top"].set_visible(False)
    axes.set_ylim(0, top / 1e3)
    axes.set_xlim(0, end)
    axes.set_xlabel("tokens read")
    axes.set_ylabel("kB")
    axes.set_title("each sleep empties the window and its cache", fontsize=11)
    axes.spines["top"].set_visible(False)
    sleeps = _find_sleeps(stream)
    for index, sleep in enumerate(sleeps):
        milliseconds = statistics.median(sleep["milliseconds"] for sleep in sleeps)
        name = f"sleep, N = {sleep['passes']}, {milliseconds:.0f} ms"
        axes.axvline(
            sleep["tokens_seen"],
            ymax=0.82,  # below the legend
            color="#333333",
            linestyle="--",
            linewidth=1,
            label=name if index == 0 else None,
        )
    handles = [*axes.get_legend_handles_labels()[0], *counts.get_legend_handles_labels()[0]]
    axes.legend(handles=handles, loc="upper left", ncols=2, frameon=False, fontsize=9)


def _draw_writes(axes: Axes, stream: dict[str, Any]) -> None:
    changes = mean_changes(stream)
    width = 0.8 / max(1, len(changes))
    for place, (layer, norms) in enumerate(changes.items()):
        shift = (place - (len(changes) - 1) / 2) * width
        bars = axes.bar(
            [n + shift for n in range(len(norms))],
            norms,
            width * 0.92,
            color=LAYER_COLOURS[place % len(LAYER_COLOURS)],
            label=f"layer {layer + 1} of {len(stream['layers'])}",
        )
        axes.bar_label(bars, fmt="%.3g", fontsize=8, padding=2)
    passes, num_sleeps = stream["sleep"]["passes"], len(_find_sleeps(stream))
    names = ["pass 1\n(the read)", *(f"pass {n}" for n in range(2, passes + 1))]
    axes.set_xticks(range(passes), names)
    axes.set_ylabel("norm of the change")
    axes.margins(y=0.25)
    of_sleeps = "" if num_sleeps == 1 else f", mean of {num_sleeps} sleeps"
    axes.set_title(f"what each pass writes into the fast weights{of_sleeps}", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    if changes:
        axes.legend(frameon=False, fontsize=9, ncols=2)


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
        text += f"\n{title}:\n\n{markdown_rows(rows)}\n"
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
        # Means over the runs, by pass, windows since and steps.
        trained, untrained = (np.mean([p[key]["first"] for p in alike], axis=0) for key in MODELS)
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
            floor = np.mean([p["floor"]["first"] for p in alike], axis=0)
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


def _draw_pair(
    axes: Axes,
    trained: NDArray[np.float64],
    untrained: NDArray[np.float64],
    style: dict[str, Any],
    label: str,
) -> None:
    """The trained models' line, and thin the untrained ones'."""
    axes.plot(trained, **style, label=label)
    axes.plot(untrained, **style | {"linewidth": 1.0, "markersize": 3, "linestyle": "--"})
