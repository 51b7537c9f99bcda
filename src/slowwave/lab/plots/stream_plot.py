"""Figures of a stream that fell asleep, drawn from what stream.json holds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from slowwave.lab.plots.canvas import draw_groups, line_style, new_figure, set_title
from slowwave.lab.plots.run_results import Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CACHE_COLOUR = "#56b4e9"
FAST_COLOUR = "#d55e00"
LAYER_COLOURS = ("#d55e00", "#e69f00", "#8c3d00", "#f0c27a", "#b8860b", "#5c2a00")


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
    sleeps = find_sleeps(stream)
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


def find_sleeps(stream: dict[str, Any]) -> list[dict[str, Any]]:
    """The sleeps among the events."""
    return [event for event in stream["events"] if event["kind"] == "sleep"]


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
    _mark_sleeps(axes, stream)
    handles = [*axes.get_legend_handles_labels()[0], *counts.get_legend_handles_labels()[0]]
    axes.legend(handles=handles, loc="upper left", ncols=2, frameon=False, fontsize=9)


def _mark_sleeps(axes: Axes, stream: dict[str, Any]) -> None:
    sleeps = find_sleeps(stream)
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
    passes, num_sleeps = stream["sleep"]["passes"], len(find_sleeps(stream))
    names = ["pass 1\n(the read)", *(f"pass {n}" for n in range(2, passes + 1))]
    axes.set_xticks(range(passes), names)
    axes.set_ylabel("norm of the change")
    axes.margins(y=0.25)
    of_sleeps = "" if num_sleeps == 1 else f", mean of {num_sleeps} sleeps"
    axes.set_title(f"what each pass writes into the fast weights{of_sleeps}", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    if changes:
        axes.legend(frameon=False, fontsize=9, ncols=2)
