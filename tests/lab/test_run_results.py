"""What runs left behind is gathered as the files hold it."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest

from recorded_runs import DEPO, RULE110, STEPS, exact_of, write_run
from slowwave.lab.plots import draw_by_group
from slowwave.lab.run_results import (
    Variant,
    base_settings,
    describe_seeds,
    find_runs,
    find_variants,
    group_spreads,
    markdown_table,
    mean_curve,
    passes_matrix,
)
from slowwave.storage.json_files import read_json, write_json


def test_variants_are_named_by_what_differs(variants: list[Variant]) -> None:
    names = [variant.name for variant in variants]
    assert names == ["base", "layout=row", "recirculate=normed", "steps=2600 muon_lr=0.02"]
    assert {n: len(runs) for n, runs in variants[0].by_passes.items()} == {1: 3, 4: 3}
    assert [variant.differs_in_training_only for variant in variants] == [True, False, False, True]
    assert base_settings(variants) == {
        "task.layout": "layout=forked",
        "sleep.consolidator.recirculate": "recirculate=hidden",
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
    assert curve.scores == pytest.approx([mean / 3, mean * 2 / 3, mean])


def test_a_mean_curve_ends_with_the_first_seed_that_stops(tmp_path: Path) -> None:
    write_run(tmp_path / "a", DEPO, exact=0.6)
    write_run(tmp_path / "b", DEPO, exact=0.9, steps=STEPS[:2], train__seed=1)
    curve = mean_curve(find_variants(find_runs(tmp_path))[0].by_passes[1])
    assert curve.tokens == [1000, 2000]
    assert curve.scores == pytest.approx([0.25, 0.5])


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


def test_what_forgets_everything_is_no_floor_of_a_group(tmp_path: Path) -> None:
    write_run(tmp_path / "run", RULE110, exact=0.5, floors={"forgetful": 0.8, "constant": 0.1})
    (variant,) = find_variants(find_runs(tmp_path))
    assert variant.floors == {"forgetful": 0.8, "constant": 0.1}
    assert variant.group_floors == {"constant": 0.1}


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
    assert describe_seeds(Variant("", {}, (run,) * count) for count in counts) == text


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
    assert len(find_variants(find_runs(tmp_path))) == 1
    write_json(old, {**recorded, "colour": "blue"})
    with pytest.raises(ValueError, match=r"0/config\.json: colour: unknown key"):
        find_runs(tmp_path)


def test_broken_metrics_are_named(folder: Path) -> None:
    (folder / "row" / "metrics.jsonl").write_text('{"step": 1')
    with pytest.raises(ValueError, match=r"row/metrics\.jsonl: its last line is not JSON"):
        find_runs(folder)


def test_a_run_that_was_not_tested_as_trained_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path, DEPO, exact=0.5)
    settings = read_json(tmp_path / "config.json")
    write_json(tmp_path / "config.json", {**settings, "sleep": {**settings["sleep"], "passes": 3}})
    with pytest.raises(
        ValueError, match=r"config\.json: sleep\.passes is 3, which summary\.json has"
    ):
        find_runs(tmp_path)


def test_an_evaluation_that_is_null_is_none(tmp_path: Path) -> None:
    write_run(tmp_path, DEPO, exact=0.5)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("".join(f'{line[:-1]}, "evaluation": null}}\n' for line in lines))
    assert find_runs(tmp_path)[0].evaluations == ()
