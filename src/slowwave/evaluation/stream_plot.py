"""The panels of a stream's picture, drawn from what stream.json holds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CACHE_COLOUR = "#56b4e9"
FAST_COLOUR = "#d55e00"
WINDOW_COLOUR = "#000000"
LAYER_COLOURS = ("#d55e00", "#f0b27a", "#8c3d00", "#e69f00", "#7a5c00", "#c9a66b")


def cache_steps(stream: dict[str, Any]) -> tuple[list[int], list[int], list[int], list[int]]:
    """Tokens read, and then in the window, bytes in the cache, bytes of fast weights.

    A sleep repeats its number of tokens with an empty window, so that the line falls straight.
    """
    tokens, fill, cache, fast = [0], [0], [0], [stream["events"][0]["fast_weights_nbytes"]]
    for event in stream["events"]:
        slept = event["kind"] == "sleep"
        tokens.append(event["tokens_seen"])
        fill.append(0 if slept else event["window_fill"])
        cache.append(event["cache_nbytes_after" if slept else "cache_nbytes"])
        fast.append(event["fast_weights_nbytes_after" if slept else "fast_weights_nbytes"])
    return tokens, fill, cache, fast


def mean_changes(stream: dict[str, Any]) -> dict[int, list[float]]:
    """By recurrent layer, the norm of the change made by pass 1, 2, ..., mean over all sleeps."""
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
    """What stream.json recorded: the window and the cache above, the writes of each pass below."""
    figure = new_figure(9, 6.4)
    top, bottom = figure.subplots(2, 1, height_ratios=[1.2, 1])
    draw_cache(top, stream)
    draw_writes(bottom, stream)
    title(figure, "One stream: the window fills, the model sleeps, the cache is dropped")
    return figure


def draw_demo(
    path: Path,
    stream: dict[str, Any],
    scores: Mapping[int, Mapping[int, Spread]],
    floors: Mapping[str, float],
    *,
    group_name: str,
    caption: str,
) -> Path:
    """Writes one picture of a demo: the stream, the writes, and accuracy by group for every N."""
    figure = new_figure(14, 4.6)
    left, middle, right = figure.subplots(1, 3)
    draw_cache(left, stream)
    draw_writes(middle, stream)
    lines = [(spreads, style(count), f"N = {count}") for count, spreads in scores.items()]
    draw_groups(right, lines, floors, group_name)
    right.set_title("answers after sleep, cache dropped", fontsize=11)
    right.legend(frameon=False, fontsize=9, loc="best")
    title(figure, "slowwave demo", caption)
    return save(figure, path)


def draw_cache(axes: Axes, stream: dict[str, Any]) -> None:
    """Cache bytes as an area, fast weights and window fill as lines, against tokens read."""
    tokens, fill, cache, fast = cache_steps(stream)
    end = tokens[-1] * 1.12
    axes.fill_between(
        [*tokens, end],
        [kb(count) for count in (*cache, cache[-1])],
        color=CACHE_COLOUR,
        alpha=0.55,
        label="attention cache",
    )
    axes.plot(
        [*tokens, end],
        [kb(count) for count in (*fast, fast[-1])],
        color=FAST_COLOUR,
        linewidth=2.2,
        label="fast weights",
    )
    counts = axes.twinx()
    counts.plot(
        tokens, fill, color=WINDOW_COLOUR, linewidth=1, marker=".", markersize=4, label="window"
    )
    window = stream["sleep"]["window"]
    counts.set_ylim(0, window * 1.3)
    counts.set_ylabel("tokens in the window")
    counts.spines["top"].set_visible(False)
    _mark_sleeps(axes, stream)
    axes.set_ylim(0, kb(max(cache)) * 1.3)
    axes.set_xlim(0, end)
    axes.set_xlabel("tokens read")
    axes.set_ylabel("kB of memory")
    axes.set_title("short-term memory is dropped at each sleep", fontsize=11)
    axes.spines["top"].set_visible(False)
    handles = [*axes.get_legend_handles_labels()[0], *counts.get_legend_handles_labels()[0]]
    axes.legend(handles=handles, loc="upper left", frameon=False, fontsize=9)


def draw_writes(axes: Axes, stream: dict[str, Any]) -> None:
    """Bars: how far every pass moved the fast weights of every recurrent layer."""
    changes = mean_changes(stream)
    width = 0.8 / max(1, len(changes))
    for place, (layer, norms) in enumerate(changes.items()):
        offset = (place - (len(changes) - 1) / 2) * width
        bars = axes.bar(
            [n + offset for n in range(len(norms))],
            norms,
            width * 0.92,
            color=LAYER_COLOURS[place % len(LAYER_COLOURS)],
            label=f"layer {layer + 1} of {len(stream['layers'])}",
        )
        axes.bar_label(bars, fmt="%.3g", fontsize=8, padding=2)
    num_sleeps = len(find_sleeps(stream))
    passes = stream["sleep"]["passes"]
    axes.set_xticks(
        range(passes), ["pass 1\n(the read)", *(f"pass {n}" for n in range(2, passes + 1))]
    )
    axes.set_ylabel("norm of the change")
    axes.margins(y=0.15)
    of = "one sleep" if num_sleeps == 1 else f"mean of {num_sleeps} sleeps"
    axes.set_title(f"what each pass wrote into the fast weights ({of})", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    if changes:
        axes.legend(frameon=False, fontsize=9)


def kb(count: int) -> float:
    """Bytes as kB."""
    return count / 1e3


def _mark_sleeps(axes: Axes, stream: dict[str, Any]) -> None:
    sleeps = find_sleeps(stream)
    for sleep in sleeps:
        axes.axvline(sleep["tokens_seen"], color="#333333", linestyle="--", linewidth=1)
    if sleeps:
        first = sleeps[0]
        axes.annotate(
            f"sleep: N = {first['passes']}, {first['milliseconds']:.0f} ms",
            (first["tokens_seen"], 0.99),
            xycoords=("data", "axes fraction"),
            xytext=(-4, 0),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=9,
        )
