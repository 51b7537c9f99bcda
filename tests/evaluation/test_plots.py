"""Figures and tables show what the files hold, and do without what they lack."""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.lines import Line2D

from slowwave.config import override
from slowwave.evaluation.canvas import draw_groups, line_style, new_figure
from slowwave.evaluation.plots import (
    draw_accuracy_by_steps,
    draw_all,
    draw_by_group,
    draw_learning_curves,
    draw_passes,
    draw_variants,
)
from slowwave.evaluation.run_results import (
    Run,
    Spread,
    Variant,
    base_settings,
    by_task_steps,
    describe_seeds,
    find_runs,
    find_variants,
    group_spreads,
    markdown_table,
    mean_curve,
    passes_matrix,
)
from slowwave.evaluation.stream_plot import cache_steps, draw_stream, mean_changes
from slowwave.experiment import ExperimentConfig, complete
from slowwave.storage.files import read_json, write_json
from slowwave.tasks.config import DepoConfig, Rule110Config
from slowwave.training.run_folder import RunFolder

DEPO = ExperimentConfig(name="depo-mini", task=DepoConfig(hops=2))
RULE110 = ExperimentConfig(name="rule110", task=Rule110Config())
STEPS = (10, 20, 30)


def exact_of(passes: int, seed: int) -> float:
    """The score that the fixture gives to the base; different for every run."""
    return 0.2 * passes + 0.01 * seed


def write_run(
    folder: Path,
    config: ExperimentConfig,
    *,
    exact: float,
    steps: tuple[int, ...] = STEPS,
    floors: dict[str, float] | None = None,
    tested: tuple[int, ...] = (1, 2, 4),
    **changes: Any,
) -> None:
    """A run folder whose scores are simple functions of `exact`; `changes` use __ for dots."""
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    settings = override(config.to_dict(), dotted)
    run = RunFolder(folder)
    write_json(folder / "config.json", settings)
    for step in steps:
        progress = {"step": step, "tokens": 100 * step, "flops": 7e9 * step, "seconds": 60.0 * step}
        run.append_metrics({**progress, "loss": 1.0, "gradient_norm": 1.0})
        score = {"overall": {"exact": exact * step / STEPS[-1]}}
        run.append_metrics({**progress, "evaluation": score})
    passes = settings["sleep"]["passes"]
    records = [
        {
            "passes": count,
            "overall": {
                "exact": exact - 0.05 * abs(count - passes),
                "sampled": exact / 2,
                "token_accuracy": 0.9,
            },
            "groups": {"1": {"exact": exact + 0.1}, "2": {"exact": exact - 0.1}},
        }
        for count in tested
    ]
    run.write_summary(
        {
            "step": STEPS[-1],
            "tokens": 3_000_000,
            "flops": 2.1e13,
            "seconds": 90.0,
            "trained_passes": passes,
            "group_name": "hop",
            "floors": floors or {"chance": 0.11},
            "test": records,
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three seeds at N = 1 and 4, and one run of each of three variants."""
    root = tmp_path / "results"
    for passes in (1, 4):
        for seed in (0, 1, 2):
            write_run(
                root / f"n{passes}-seed{seed}",
                DEPO,
                exact=exact_of(passes, seed),
                sleep__passes=passes,
                train__seed=seed,
            )
    write_run(root / "flops", DEPO, exact=0.3, train__steps=2600, train__muon_lr=2e-2)
    write_run(root / "normed", DEPO, exact=0.7, sleep__passes=4, sleep__recirculate="normed")
    write_run(
        root / "row",
        DEPO,
        exact=0.5,
        floors={"chance": 0.11, "copy": 0.2},
        sleep__passes=4,
        task__layout="row",
    )
    return root


@pytest.fixture
def variants(folder: Path) -> list[Variant]:
    return find_variants(find_runs(folder))


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


def _is_png(path: Path, *, min_bytes: int = 10_000) -> bool:
    content = path.read_bytes()
    return content.startswith(b"\x89PNG\r\n") and len(content) > min_bytes


def _points(line: Line2D) -> npt.NDArray[np.float64]:
    """x and y, (2, points)."""
    return np.array([line.get_xdata(), line.get_ydata()], dtype=np.float64)


def _exact(runs: list[Run]) -> list[float]:
    """The last validation score of each run."""
    return [run.evaluations[-1]["evaluation"]["overall"]["exact"] for run in runs]


# Gathering.


def test_variants_are_named_by_what_differs(variants: list[Variant]) -> None:
    names = [variant.name for variant in variants]
    assert names == ["base", "layout=row", "recirculate=normed", "steps=2600 muon_lr=0.02"]
    assert {n: len(runs) for n, runs in variants[0].by_passes.items()} == {1: 3, 4: 3}
    assert [variant.differs_in_training_only for variant in variants] == [True, False, False, True]
    assert base_settings(variants) == {
        "task.layout": "layout=forked",
        "sleep.recirculate": "recirculate=hidden",
        "train.steps": "steps=1000",
        "train.muon_lr": "muon_lr=0.01",
    }


def test_a_name_of_two_sections_is_written_out(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / str(seed), RULE110, exact=0.5, train__seed=seed)
    write_run(tmp_path / "t4", RULE110, exact=0.5, task__steps=4)
    assert find_variants(find_runs(tmp_path))[1].name == "task.steps=4"


def test_a_curve_is_the_mean_of_the_files(variants: list[Variant]) -> None:
    curve = mean_curve(variants[0].by_passes[4])
    mean = statistics.fmean(exact_of(4, seed) for seed in (0, 1, 2))
    assert curve.tokens == [1000, 2000, 3000]
    assert curve.flops == [7e10, 14e10, 21e10]
    assert curve.seconds == [600, 1200, 1800]
    assert curve.exact == pytest.approx([mean / 3, mean * 2 / 3, mean])


def test_a_mean_curve_ends_with_the_first_seed_that_stops(tmp_path: Path) -> None:
    write_run(tmp_path / "a", DEPO, exact=0.6)
    write_run(tmp_path / "b", DEPO, exact=0.9, steps=STEPS[:2], train__seed=1)
    curve = mean_curve(find_variants(find_runs(tmp_path))[0].by_passes[1])
    assert curve.tokens == [1000, 2000]
    assert curve.exact == pytest.approx([0.25, 0.5])


def test_spreads_go_from_the_lowest_to_the_highest_seed(variants: list[Variant]) -> None:
    spread = group_spreads(variants[0].by_passes[1])["2"]
    found = [spread.mean, spread.low, spread.high]
    assert found == pytest.approx(
        [exact_of(1, 1) - 0.1, exact_of(1, 0) - 0.1, exact_of(1, 2) - 0.1]
    )


def test_passes_matrix(variants: list[Variant]) -> None:
    matrix = passes_matrix(variants[0])
    assert {trained: list(row) for trained, row in matrix.items()} == {1: [1, 2, 4], 4: [1, 2, 4]}
    assert matrix[4][1] == pytest.approx(exact_of(4, 1) - 0.15)
    assert matrix[1][1] == pytest.approx(exact_of(1, 1))


def test_label_floors_belong_to_groups(tmp_path: Path) -> None:
    floors = {"constant": 0.08, "marginal": 0.06, "bit": 0.53}
    write_run(tmp_path / "run", RULE110, exact=0.5, floors=floors)
    (variant,) = find_variants(find_runs(tmp_path))
    assert variant.floors == {"constant": 0.08, "marginal": 0.06}
    assert variant.group_floors == {"bit": 0.53}
    assert variant.floor_by_group == {}


def test_a_group_may_have_a_floor_of_its_own(tmp_path: Path) -> None:
    floors = {"constant": 0.24, "hop 1": 0.3, "hop 2": 0.2, "hop 2 reverse": 0.3}
    write_run(tmp_path / "run", DEPO, exact=0.5, floors=floors)
    variants = find_variants(find_runs(tmp_path))
    assert variants[0].floors == {"constant": 0.24}
    assert variants[0].group_floors == {}
    assert variants[0].floor_by_group == {"1": 0.3, "2": 0.2}
    (axes,) = draw_by_group(variants).axes
    segments = [np.asarray(line.get_xydata()).tolist() for line in axes.lines]
    assert [[0.7, 0.3], [1.3, 0.3]] in segments


def test_floors_of_told_facts_belong_to_groups(tmp_path: Path) -> None:
    write_run(tmp_path / "run", DEPO, exact=0.5, floors={"constant": 0.125, "guess": 0.03})
    (variant,) = find_variants(find_runs(tmp_path))
    assert variant.floors == {"constant": 0.125}
    assert variant.group_floors == {"guess": 0.03}


@pytest.mark.parametrize(
    ("counts", "text"),
    [([1, 1], "1 seed"), ([3], "mean of 3 seeds"), ([3, 1], "mean of 1 to 3 seeds")],
)
def test_seeds_in_words(variants: list[Variant], counts: list[int], text: str) -> None:
    run = variants[0].runs[0]
    assert describe_seeds([[run] * count for count in counts]) == text


def test_table_rows(variants: list[Variant]) -> None:
    lines = markdown_table(variants).splitlines()
    assert "layout=forked recirculate=hidden steps=1000 muon_lr=0.01" in lines[4]
    rows = [line for line in lines if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    names = (
        "variant | trained N | seeds | tokens | TFLOP | minutes | exact | sampled | token | "
        "hop 1 | hop 2 | floors"
    )
    assert rows[0] == f"| {names} |"
    assert rows[2] == (
        "| base | 1 | 3 | 3.00 M | 21.0 | 1.5 | 21.0% (20.0 to 22.0) | "
        "10.5% (10.0 to 11.0) | 90.0% | 31.0% (30.0 to 32.0) | "
        "11.0% (10.0 to 12.0) | chance 11.0% |"
    )
    assert rows[4] == (
        "| layout=row | 4 | 1 | 3.00 M | 21.0 | 1.5 | 50.0% | 25.0% | 90.0% | 60.0% | 40.0% | "
        "chance 11.0%, copy 20.0% |"
    )


def test_a_spread_that_rounds_away_is_not_printed(tmp_path: Path) -> None:
    for seed, exact in enumerate((0.50001, 0.50002)):
        write_run(tmp_path / str(seed), DEPO, exact=exact, train__seed=seed)
    assert "| 50.0% | 25.0% | 90.0% | 60.0% | 40.0% |" in markdown_table(
        find_variants(find_runs(tmp_path))
    )


def test_unfinished_runs_do_not_count(folder: Path) -> None:
    (folder / "row" / "summary.json").unlink()
    assert "row" not in {run.folder.name for run in find_runs(folder)}
    assert len(find_runs(folder)) == 8


def test_runs_from_before_a_field_existed_are_of_one_variant(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / str(seed), DEPO, exact=0.5, train__seed=seed)
    old = tmp_path / "0" / "config.json"
    recorded = read_json(old)
    del recorded["model"]["initial_weights"]
    write_json(old, recorded)
    assert len(find_variants(find_runs(tmp_path))) == 2
    assert len(find_variants(find_runs(tmp_path, complete))) == 1
    write_json(old, {**recorded, "colour": "blue"})
    with pytest.raises(ValueError, match=r"0/config\.json: colour: unknown key"):
        find_runs(tmp_path, complete)


def test_broken_metrics_are_named(folder: Path) -> None:
    (folder / "row" / "metrics.jsonl").write_text('{"step": 1')
    with pytest.raises(ValueError, match=r"row/metrics\.jsonl: not valid JSON lines"):
        find_runs(folder)


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
            assert _points(line) == pytest.approx(np.array([x, curve.exact]))
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
        ((("1", "10"), ("1", "none")), {"1": 0, "10": 1, "none": 2}),
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


def test_a_stream_before_its_first_sleep_is_drawn(stream: dict[str, Any]) -> None:
    figure = draw_stream({**stream, "events": stream["events"][:2]})
    assert not figure.axes[1].patches


def test_bars_of_a_stream_are_its_changes(stream: dict[str, Any]) -> None:
    bars = draw_stream(stream).axes[1].patches
    assert [bar.get_height() for bar in bars] == [1.5, 15.0]  # pyright: ignore[reportAttributeAccessIssue]


def test_a_stream_alone_is_enough(stream: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / "stream.json", stream)
    assert draw_all(tmp_path, tmp_path) == [tmp_path / "stream.png"]
    assert _is_png(tmp_path / "stream.png")


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
    with pytest.raises(ValueError, match=r"matplotlib is not installed.*slowwave\[plot\]"):
        draw_all(folder, folder)


def test_gathering_needs_no_matplotlib(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    variants = find_variants(find_runs(folder))
    assert json.dumps(passes_matrix(variants[0]))
    assert Spread.of([0.5]) == Spread(0.5, 0.5, 0.5)
