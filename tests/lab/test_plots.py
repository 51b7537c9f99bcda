"""Figures and tables show what the files hold, and do without what they lack."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.lines import Line2D

from damage import spoil_json
from recorded_runs import DEPO, RULE110, TEXT, exact_of, write_run
from slowwave.lab.canvas import draw_groups, line_style, new_figure
from slowwave.lab.memory_plots import cache_steps, draw_stream, mean_changes
from slowwave.lab.plots import (
    FIGURES,
    draw_accuracy_by_steps,
    draw_all,
    draw_by_group,
    draw_learning_curves,
    draw_passes,
    draw_switched_off,
    draw_variants,
)
from slowwave.lab.run_results import (
    Run,
    Spread,
    Variant,
    by_task_steps,
    find_runs,
    find_variants,
    group_spreads,
    markdown_table,
    mean_curve,
    passes_matrix,
)
from slowwave.storage.json_files import write_json
from slowwave.training.run_files import read_stream


@pytest.fixture
def stream() -> dict[str, Any]:
    """Two windows of two tokens, slept with N = 2, in a model with one recurrent layer."""
    events: list[dict[str, Any]] = []
    for sleep in (1, 2):
        for fill in (1, 2):
            events.append(
                {
                    "kind": "read",
                    "tokens_seen": 2 * sleep - 2 + fill,
                    "window_fill": fill,
                    "cache_nbytes": 10 * fill,
                    "fast_weights_nbytes": 64,
                    "state_nbytes": 70 + 10 * fill,
                }
            )
        events.append(
            {
                "kind": "sleep",
                "tokens_seen": 2 * sleep,
                "window_tokens": 2,
                "passes": 2,
                "milliseconds": 3.0,
                "cache_nbytes_before": 20,
                "cache_nbytes_after": 0,
                "fast_weights_nbytes_before": 64,
                "fast_weights_nbytes_after": 64,
                "writes": [
                    [{"layer": 1, "change": 1.0 * sleep, "norm": 1.0}],
                    [{"layer": 1, "change": 10.0 * sleep, "norm": 2.0}],
                ],
            }
        )
    sleep_config = {"window": 2, "passes": 2, "recirculate": "hidden"}
    return {"sleep": sleep_config, "layers": ["attn", "gdn"], "events": events}


def _exact(runs: list[Run]) -> list[float]:
    """The last validation score of each run."""
    return [run.evaluations[-1]["evaluation"]["overall"]["exact"] for run in runs]


def _is_png(path: Path, *, min_bytes: int = 10_000) -> bool:
    content = path.read_bytes()
    return content.startswith(b"\x89PNG\r\n") and len(content) > min_bytes


def _points(line: Line2D) -> npt.NDArray[np.float64]:
    """x and y, (2, points)."""
    return np.array([line.get_xdata(), line.get_ydata()], dtype=np.float64)


def test_cache_steps_fall_at_each_sleep(stream: dict[str, Any]) -> None:
    tokens, fill, cache, fast = cache_steps(stream)
    assert tokens == [0, 1, 2, 2, 3, 4, 4]
    assert fill == [0, 1, 2, 0, 1, 2, 0]
    assert cache == [0, 10, 20, 0, 10, 20, 0]
    assert fast == [64] * 7


def test_changes_are_means_over_sleeps(stream: dict[str, Any]) -> None:
    assert mean_changes(stream) == {1: [1.5, 15.0]}
    unslept = {**stream, "events": stream["events"][:2]}
    assert mean_changes(unslept) == {}


# Drawing.


def test_all_figures_are_written(folder: Path, stream: dict[str, Any], tmp_path: Path) -> None:
    write_json(folder / "stream.json", stream)
    written = draw_all(folder, tmp_path / "out")
    assert [path.name for path in written] == [
        "learning-curves.png",
        "by-group.png",
        "passes.png",
        "variants.png",
        "table.md",
        "stream.png",
    ]
    assert all(_is_png(path) for path in written if path.suffix == ".png")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        path.name for path in written
    )


def test_a_single_run_without_metrics(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_run(run, DEPO, exact=0.5, tested=(1,))
    (run / "metrics.jsonl").unlink()
    assert [path.name for path in draw_all(run, run)] == ["by-group.png", "table.md"]


def test_lines_are_the_data_and_keep_the_colour_of_their_n(variants: list[Variant]) -> None:
    curves, groups = draw_learning_curves(variants), draw_by_group(variants)
    assert curves is not None
    colours: set[str] = set()
    for passes, runs in variants[0].by_passes.items():
        curve = mean_curve(runs)
        tokens, flops, minutes = curves.axes
        for axes, x in (
            (tokens, [count / 1e6 for count in curve.tokens]),
            (flops, [count / 1e12 for count in curve.flops]),
            (minutes, [seconds / 60 for seconds in curve.seconds]),
        ):
            (line,) = [line for line in axes.lines if line.get_label() == f"N = {passes}"]
            assert _points(line) == pytest.approx(np.array([x, curve.scores]))
            colour = str(line.get_color())
            of_seeds = [line for line in axes.lines if _points(line)[1, -1] in _exact(runs)]
            assert {str(line.get_color()) for line in of_seeds} == {colour}
            colours.add(colour)
        means = np.array([spread.mean for spread in group_spreads(runs).values()])
        by_group = [
            line for line in groups.axes[0].lines if _points(line)[1] == pytest.approx(means)
        ]
        assert {str(line.get_color()) for line in by_group} == {colour}
    assert len(colours) == 2
    assert "mean of 3 seeds" in str(curves.legends[0].get_title().get_text())


@pytest.mark.parametrize(
    ("groups", "places"),
    [
        ((("1", "10"), ("1", "10", "100")), {"1": 1, "10": 10, "100": 100}),
        ((("b", "a"), ("b", "none")), {"b": 0, "a": 1, "none": 2}),
    ],
)
def test_groups_stand_where_they_belong_or_side_by_side(
    groups: tuple[tuple[str, ...], ...], places: dict[str, int]
) -> None:
    axes = new_figure(4, 3).subplots()
    lines = [({group: Spread.of([0.5]) for group in each}, line_style(1), "") for each in groups]
    draw_groups(axes, lines, {"guess": 0.1}, "windows ago")
    assert axes.get_xticks().tolist() == list(places.values())
    assert [label.get_text() for label in axes.get_xticklabels()] == list(places)
    for container, each, shift in zip(axes.containers, groups, (-0.025, 0.025), strict=True):
        expected = [places[group] + shift for group in each]
        assert _points(container[0])[0] == pytest.approx(expected)


def test_updates_share_the_places_of_distances_and_others_stand_apart() -> None:
    axes = new_figure(4, 3).subplots()
    groups = ["4-7", "1", "16 updated", "1 updated", "unknown"]
    spreads = {group: Spread.of([place / 10]) for place, group in enumerate(groups)}
    draw_groups(axes, [(spreads, line_style(1), "N = 1")], {}, "windows ago")
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert shown == ["1", "4-7", "16", "unknown"]
    lines = [container[0] for container in axes.containers]
    assert [list(zip(*_points(line), strict=True)) for line in lines] == [
        [(0, 0.1), (1, 0.0)],
        [(0, 0.3), (2, 0.2)],
        [(3, 0.4)],
    ]
    assert [line.get_linestyle() for line in lines] == ["-", "--", "None"]
    assert axes.get_legend_handles_labels()[1] == ["N = 1", "N = 1, updated"]


def test_heat_map_prints_its_cells(variants: list[Variant]) -> None:
    figure = draw_passes(variants)
    assert figure is not None
    cells = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert cells[0, 1] == f"{exact_of(4, 1) - 0.15:.1%}"  # trained with 4, slept with 1
    assert cells[2, 1] == f"{exact_of(4, 1):.1%}"
    assert len(cells) == 6


def test_accuracy_by_steps(tmp_path: Path) -> None:
    scores = {(2, 1): 0.9, (8, 1): 0.3, (2, 4): 1.0, (8, 4): 0.8}
    for (steps, passes), exact in scores.items():
        write_run(
            tmp_path / f"{steps}-{passes}",
            RULE110,
            exact=exact,
            floors={"constant": 0.01 * steps, "bit": 0.5},
            task__steps=steps,
            sleep__passes=passes,
        )
    write_run(tmp_path / "other", RULE110, exact=0.1, task__steps=4, train__muon_lr=0.5)
    variants = find_variants(find_runs(tmp_path))
    assert list(by_task_steps(variants)) == [2, 8]
    figure = draw_accuracy_by_steps(variants)
    assert figure is not None
    drawn = {tuple(_points(line)[1].tolist()) for line in figure.axes[0].lines}
    assert {(0.9, 0.3), (1.0, 0.8), (0.02, 0.08)} <= drawn


def test_figures_without_their_ingredients_are_left_out(folder: Path) -> None:
    base = find_variants([run for run in find_runs(folder) if run.folder.name.startswith("n1")])
    assert draw_variants(base) is None
    assert draw_accuracy_by_steps(base) is None
    unevaluated = dataclasses.replace(
        base[0], runs=tuple(dataclasses.replace(run, evaluations=()) for run in base[0].runs)
    )
    assert draw_learning_curves([unevaluated]) is None


def test_text_is_drawn_in_bits_per_byte(tmp_path: Path) -> None:
    """Everywhere, without floors, which are about right answers; a token is four bytes here."""
    for passes, exact in ((1, 0.5), (2, 0.7)):
        for rate in (0.1, 0.2):
            write_run(
                tmp_path / f"{passes}-{rate}",
                TEXT,
                exact=exact + rate,
                floors={"constant": 0.11},
                bytes_per_token=4.0,
                tested=(1, 2),
                sleep__passes=passes,
                train__muon_lr=rate,
            )
    variants = find_variants(find_runs(tmp_path))
    drawn = [draw(variants) for draw in FIGURES.values()]
    curves, groups, switched_off, passes_map, by_steps, rows = drawn
    assert by_steps is None
    assert switched_off is None
    assert curves is not None and groups is not None and passes_map is not None and rows is not None
    assert "bits per byte" in curves.axes[0].get_ylabel()
    assert "bits per byte" in groups.axes[0].get_ylabel()
    assert "bits per byte" in passes_map.axes[0].get_title()
    assert "bits per byte" in rows.axes[0].get_xlabel()

    (line,) = [line for line in curves.axes[0].lines if line.get_label() == "N = 1"]
    base = variants[0].by_passes[1][0].overall["exact"]
    expected = [(2 - base * share) / math.log(2) / 4 for share in (1 / 3, 2 / 3, 1)]
    assert _points(line)[1] == pytest.approx(expected)
    assert not any((_points(line)[1] == 0.11).any() for axes in curves.axes for line in axes.lines)
    by_group = [(2 - base - 0.1) / math.log(2) / 4, (2 - base + 0.1) / math.log(2) / 4]
    assert any(_points(line)[1] == pytest.approx(by_group) for line in groups.axes[0].lines)
    cells = {text.get_position(): text.get_text() for text in passes_map.axes[0].texts}
    assert cells[0, 0] == f"{expected[-1]:.3f}"
    assert f"{expected[-1]:.3f}" in [text.get_text() for text in rows.axes[0].texts]
    table = markdown_table(variants)
    assert "| bits per byte | sampled |" in table
    assert f"| {expected[-1]:.3f} |" in table


def test_what_steps_at_test_time_do_is_drawn_beside_them_switched_off(tmp_path: Path) -> None:
    for passes, exact in ((1, 0.5), (2, 0.7)):
        change = {"sleep__passes": passes, "sleep__consolidator": {"kind": "ttt"}}
        write_run(tmp_path / str(passes), TEXT, exact=exact, tested=(1, 2), **change)
    variants = find_variants(find_runs(tmp_path))
    figure = draw_switched_off(variants)
    assert figure is not None
    (run,) = variants[0].by_passes[2]
    drawn = [_points(line)[1] for line in figure.axes[0].lines]
    for passes in (1, 2):
        scores = list(run.groups_at(passes).values())
        assert any(y == pytest.approx(scores) for y in drawn if len(y) == len(scores))
    _, labels = figure.axes[0].get_legend_handles_labels()
    assert labels == ["N = 1", "N = 2", "N = 2, steps off"]


def test_a_stream_before_its_first_sleep_is_drawn(stream: dict[str, Any]) -> None:
    figure = draw_stream({**stream, "events": stream["events"][:2]})
    assert not figure.axes[1].patches


def test_a_stream_without_a_cache_is_drawn(stream: dict[str, Any]) -> None:
    for event in stream["events"]:
        event.update((name, 0) for name in event if name.startswith("cache"))
    assert draw_stream(stream).axes[0].get_legend()


def test_bars_of_a_stream_are_its_changes(stream: dict[str, Any]) -> None:
    bars = draw_stream(stream).axes[1].patches
    assert [bar.get_height() for bar in bars] == [1.5, 15.0]  # pyright: ignore[reportAttributeAccessIssue]


def test_a_stream_alone_is_enough(stream: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / "stream.json", stream)
    assert draw_all(tmp_path, tmp_path) == [tmp_path / "stream.png"]
    assert _is_png(tmp_path / "stream.png")


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("tokens_seen",), "events end with no token seen"),
        (("window_fill",), "events has no read that fills the window"),
        (("cache_nbytes", "fast_weights_nbytes"), "events has no read that takes a byte"),
    ],
)
def test_a_stream_of_nothing_is_named(
    stream: dict[str, Any], tmp_path: Path, names: tuple[str, ...], sentence: str
) -> None:
    for event in stream["events"]:
        event.update((name, 0) for name in names if name in event)
    write_json(tmp_path / "stream.json", stream)
    with pytest.raises(ValueError, match=rf"stream\.json: .*{sentence}; restore the file"):
        draw_all(tmp_path, tmp_path)


def test_changes_too_large_to_add_up_are_named(stream: dict[str, Any], tmp_path: Path) -> None:
    for event in stream["events"]:
        for writes in event.get("writes", []):
            writes[0]["change"] = 1.7e308
    write_json(tmp_path / "stream.json", stream)
    with pytest.raises(ValueError, match=r"stream\.json: events\..*change: .*; restore the file"):
        draw_all(tmp_path, tmp_path)


def test_a_damaged_stream_is_named_or_drawn(stream: dict[str, Any], tmp_path: Path) -> None:
    refused, path = 0, tmp_path / "stream.json"
    for seed in range(200):
        path.write_text(json.dumps(spoil_json(stream, random.Random(seed))))
        try:
            draw_stream(read_stream(path))
        except ValueError as error:
            assert str(error).startswith(f"{path}: "), seed
            refused += 1
    assert refused > 80


# Refusals.


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_no_run_at_all(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=rf"{name}: no finished run .* slowwave train"):
        draw_all(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_runs_of_two_recipes(folder: Path) -> None:
    write_run(folder / "foreign", RULE110, exact=0.5)
    with pytest.raises(
        ValueError, match=r"several recipes \(depo-mini, rule110\); name the folder"
    ):
        draw_all(folder, folder)


def test_missing_matplotlib(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match=r"matplotlib is not installed.*make demo.*\[plot\]"):
        draw_all(folder, folder)


def test_gathering_needs_no_matplotlib(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    variants = find_variants(find_runs(folder))
    assert json.dumps(passes_matrix(variants[0]))
    assert Spread.of([0.5]) == Spread(0.5, 0.5, 0.5)
