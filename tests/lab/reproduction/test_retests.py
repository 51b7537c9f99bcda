"""Tests of trained runs on changed tasks: planned, made once, and shown as they were recorded."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.lines import Line2D

from recorded_runs import make_record, make_summary
from slowwave import cli
from slowwave.experiment import load_experiment, retask, run_training
from slowwave.lab.reproduction.drawings import draw_retests, gather_retests, retest_table
from slowwave.lab.reproduction.figures import SCALES, FigureConfig, read_figures
from slowwave.lab.reproduction.retests import (
    PlannedRetest,
    find_retest_state,
    find_retested,
    plan_retests,
)
from slowwave.lab.reproduction.runs import plan_runs
from slowwave.lab.reproduction.table import results_readme
from slowwave.storage.files import write_atomically
from slowwave.storage.json_files import write_json
from slowwave.training.run_folder import RunFolder

ROOT = Path(__file__).parents[3]
RECIPE = """
name = "tiny"
[task]
name = "rule110"
width = 6
steps = 2
[model]
width = 16
mlp_hidden = 16
attn_heads = 2
key_dim = 8
value_dim = 8
[sleep]
window = 6
passes = 2
[train]
steps = 2
batch_size = 4
eval_examples = 4
threads = 1
"""
FIGURE = """
title = "A tiny figure"
shows = "That it runs."
retests_by = "steps"
[[mini]]
recipe = "tiny"
name = "n{sleep.passes}-seed{train.seed}"
each = { sleep.passes = [1, 2] }
[[retests]]
name = "t = {task.steps}"
each = { steps = [1, 3] }
passes = [3]
examples = 4
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with one recipe and one figure."""
    (tmp_path / "recipes" / "figures").mkdir(parents=True)
    (tmp_path / "recipes" / "tiny.toml").write_text(RECIPE)
    (tmp_path / "recipes" / "figures" / "small.toml").write_text(FIGURE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def _plan(seeds: int) -> tuple[FigureConfig, list[PlannedRetest]]:
    figure = read_figures()["small"]
    return figure, plan_retests(figure, plan_runs(figure, "mini", seeds=seeds))


def _exact(retest: PlannedRetest, tested: int) -> float:
    """The score that `recorded` gives; different for every test, run and N slept with."""
    config = retest.run.config
    return (
        0.1 * retest.changes["steps"]
        + 0.05 * config.sleep.passes
        + 0.02 * config.train.seed
        + 0.01 * tested
    )


def _line(retest: PlannedRetest) -> dict[str, Any]:
    records = [
        {
            "passes": tested,
            "overall": {"exact": _exact(retest, tested), "sampled": 0.25, "token_accuracy": 0.75},
            "groups": {"0": {"exact": _exact(retest, tested) / 2}},
        }
        for tested in retest.passes
    ]
    floors = {"constant": 0.01 * retest.changes["steps"], "bit": 0.5}
    start = {"changes": retest.changes, "examples": retest.examples}
    return {**start, "group_name": "state", "floors": floors, "test": records}


@pytest.fixture
def recorded(tiny: Path) -> list[PlannedRetest]:
    """All tests of two seeds, without checkpoints."""
    _, retests = _plan(seeds=2)
    for run in {retest.run.folder: retest.run for retest in retests}.values():
        write_json(run.folder / "config.json", run.config.to_dict())
        passes = run.config.sleep.passes
        summary = make_summary(passes, [make_record(passes, 0.9, {})], flops=25 * 10**11)
        RunFolder(run.folder).write_summary(summary)
        lines = [json.dumps(_line(retest)) for retest in retests if retest.run == run]
        write_atomically(run.folder / "retests.jsonl", "\n".join([*lines, ""]).encode())
    return retests


# The figures of this repository.


def test_every_test_fits_its_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed task keeps the vocabulary, and runs of one test differ in seed and N alone."""
    monkeypatch.chdir(ROOT)
    shared: dict[tuple[str, str, str], set[str]] = {}
    for title, figure in read_figures().items():
        for scale in SCALES:
            for retest in plan_retests(figure, plan_runs(figure, scale, seeds=1)):
                changed, task = retask(retest.run.config, retest.changes)
                assert task.vocab_size
                sections = changed.to_dict()
                sections["sleep"].pop("passes")
                key = (title, scale, retest.name)
                shared.setdefault(key, set()).add(json.dumps(sections, sort_keys=True))
    assert shared
    assert all(len(configs) == 1 for configs in shared.values())


# Any figure.


def test_tests_are_all_combinations_and_hold_the_trained_n(tiny: Path) -> None:
    _, retests = _plan(seeds=1)
    planned = [(each.run.name, each.name, each.passes) for each in retests]
    assert planned == [
        ("n1-seed0", "t = 1", (1, 3)),
        ("n1-seed0", "t = 3", (1, 3)),
        ("n2-seed0", "t = 1", (2, 3)),
        ("n2-seed0", "t = 3", (2, 3)),
    ]


def test_a_run_that_others_start_from_is_not_tested(tiny: Path) -> None:
    start = 'start_from = "results/tiny/n1-seed0"'
    more = f"""[[mini]]
recipe = "tiny"
name = "longer"
set = {{ train.{start}, sleep.passes = 1 }}
seeds = 1
"""
    file = tiny / "recipes" / "figures" / "small.toml"
    file.write_text(FIGURE.replace("[[retests]]", f"{more}[[retests]]"))
    _, retests = _plan(1)
    assert {retest.run.name for retest in retests} == {"n2-seed0", "longer"}


def test_a_figure_is_tested_once(
    tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.main(["reproduce", "small", "--seeds", "1", "--dry-run"])
    shown = capsys.readouterr().out
    assert "results/tiny/n2-seed0, tested with t = 3: to do\n" in shown
    (command,) = [line for line in shown.splitlines() if "n2-seed0 --set steps=3 " in line]

    monkeypatch.setattr("slowwave.experiment.TEST_EXAMPLES", 4)
    for run in plan_runs(read_figures()["small"], "mini", seeds=1):
        run_training(run.config, run.folder)
    cli.main(["reproduce", "small", "--seeds", "1"])
    printed = capsys.readouterr()
    assert "0 of 4 tests are recorded" in printed.err
    assert "n2-seed0: tested with t = 3 (2 of 2)" in printed.err
    for name in ("tiny/small.png", "tiny/small.md"):
        assert f"results/{name}\n" in printed.out
        assert (tiny / "results" / name).exists()

    cli.main([*command.split()[1:], "--json"])
    (run,) = find_retested(_plan(seeds=1)[1][3])
    assert json.loads(capsys.readouterr().out)["test"] == run.summary["test"]

    written = (run.folder / "retests.jsonl").read_bytes()
    cli.main(["reproduce", "small", "--seeds", "1"])
    printed = capsys.readouterr()
    assert "4 of 4 tests are recorded" in printed.err
    assert "tested with" not in printed.err
    assert (run.folder / "retests.jsonl").read_bytes() == written

    cli.main(["reproduce", "--seeds", "1"])
    assert "2 of 2 runs, 4 of 4 tests" in capsys.readouterr().out

    more = FIGURE.replace("[3]", "[4]")
    (tiny / "recipes" / "figures" / "small.toml").write_text(more)
    cli.main(["reproduce", "small", "--seeds", "1"])
    (run,) = find_retested(_plan(seeds=1)[1][3])
    assert list(run.tests) == [2, 3, 4]

    shutil.rmtree(run.folder / "checkpoint")
    (run.folder / "retests.jsonl").unlink()
    cli.main(["reproduce", "--seeds", "1"])
    assert "2 of 4 tests, 2 without checkpoint here" in capsys.readouterr().out
    cli.main(["reproduce", "small", "--seeds", "1"])
    said = "n2-seed0: 2 tests are left out, as its checkpoint is not here; delete the folder"
    assert said in capsys.readouterr().err


def test_without_its_checkpoint_a_recorded_test_is_recorded(recorded: list[PlannedRetest]) -> None:
    assert {find_retest_state(retest) for retest in recorded} == {"recorded"}
    for retest in recorded:
        (run,) = find_retested(retest)
        assert run.settings["task.steps"] == retest.changes["steps"]
        assert {n: test["overall"]["exact"] for n, test in run.tests.items()} == {
            n: _exact(retest, n) for n in retest.passes
        }
    (recorded[0].run.folder / "retests.jsonl").unlink()
    assert find_retest_state(recorded[0]) == "checkpoint not here"
    assert find_retested(recorded[0]) == []


def test_other_examples_are_another_test(recorded: list[PlannedRetest], tiny: Path) -> None:
    fewer = FIGURE.replace("examples = 4", "examples = 3")
    (tiny / "recipes" / "figures" / "small.toml").write_text(fewer)
    assert {find_retest_state(retest) for retest in _plan(seeds=2)[1]} == {"checkpoint not here"}


def test_lines_are_what_was_recorded(recorded: list[PlannedRetest]) -> None:
    figure, retests = _plan(seeds=2)
    drawing = draw_retests(figure, gather_retests(retests), retests[0].run.settings)
    for trained, axes in zip((1, 2), drawing.axes, strict=True):
        lines = {bars.get_label(): bars.lines[0] for bars in axes.containers}  # pyright: ignore
        assert set(lines) == {f"slept with N = {tested}" for tested in (trained, 3)}
        for tested in (trained, 3):
            expected = [
                statistics.fmean(_exact(r, tested) for r in retests if _is(r, steps, trained))
                for steps in (1, 3)
            ]
            drawn = _points(lines[f"slept with N = {tested}"])
            np.testing.assert_allclose(drawn, [[1, 3], expected])
        floors = [_points(line)[1].tolist() for line in axes.lines]
        assert [0.01, 0.03] in floors
        assert not any(0.5 in floor for floor in floors)


def test_without_a_field_to_follow_each_test_has_a_panel(recorded: list[PlannedRetest]) -> None:
    _, retests = _plan(seeds=2)
    figure = FigureConfig(title="A", shows="B")
    drawing = draw_retests(figure, gather_retests(retests), {})
    shown = [axes for axes in drawing.axes if axes.axison]
    assert [axes.get_title() for axes in shown] == ["t = 1", "t = 3"]
    for axes, steps in zip(shown, (1, 3), strict=True):
        for bars, trained in zip(axes.containers, (1, 2), strict=True):
            own = [_exact(r, trained) for r in retests if _is(r, steps, trained)]
            mean = statistics.fmean(own) / 2
            assert _points(bars.lines[0])[1] == pytest.approx([mean])  # pyright: ignore


def test_tables_hold_every_test(recorded: list[PlannedRetest]) -> None:
    figure, retests = _plan(seeds=2)
    rows = retest_table(gather_retests(retests)).splitlines()
    assert rows[4:6] == [
        "| test | trained N | slept with N | seeds | exact | sampled | token | state 0 | floors |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    assert len(rows[6:]) == 2 * 2 * 2
    scored = "| 19.0% (18.0 to 20.0) | 25.0% | 75.0% | 9.5% (9.0 to 10.0) |"
    assert f"| t = 1 | 1 | 3 | 2 {scored} constant 1.0%, bit 50.0% |" in rows
    readme = results_readme({"small": figure})
    links = "[0](tiny/n2-seed0), [1](tiny/n2-seed1)"
    scored = "43.0% (42.0 to 44.0) | constant 3.0% | 2.5 | 2 of 3"
    row = f"| small | mini | tiny, N = 2, tested with t = 3 |  | {scored} | {links} |"
    assert row in readme.splitlines()


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("{ steps = [1, 3] }", "{ steps = 3 }", "retests.0: each.steps is 3; list what it takes"),
        ("passes = [3]", "passes = [0]", "passes is \\(0,\\); use 1 or more for each"),
        ("examples = 4", "examples = 0", "examples is 0; use 1 or more"),
        ("{ steps = [1, 3] }", "{ stops = [1, 3] }", "task.stops: unknown key"),
        ("{ steps = [1, 3] }", "{ steps = [-1] }", "task.steps is -1; use 0"),
        ("{task.steps}", "{task.stops}", "has {task.stops}, which is no setting"),
    ],
)
def test_a_wrong_entry_is_refused(tiny: Path, before: str, after: str, sentence: str) -> None:
    (tiny / "recipes" / "figures" / "small.toml").write_text(FIGURE.replace(before, after))
    with pytest.raises(ValueError, match=sentence):
        _plan(seeds=1)


def test_a_broken_file_is_refused(recorded: list[PlannedRetest]) -> None:
    (recorded[0].run.folder / "retests.jsonl").write_text('{"changes"')
    with pytest.raises(
        ValueError, match=r"retests.jsonl: its last line is not JSON .*, or delete it"
    ):
        find_retest_state(recorded[0])
    (recorded[0].run.folder / "retests.jsonl").write_text('{"changes": {}}\n')
    with pytest.raises(ValueError, match=r"retests.jsonl: line 1 is no test; .*, or delete it"):
        find_retest_state(recorded[0])


def _points(line: Line2D) -> npt.NDArray[np.float64]:
    """x and y, (2, points)."""
    return np.array([line.get_xdata(), line.get_ydata()], dtype=np.float64)


def _is(retest: PlannedRetest, steps: int, trained: int) -> bool:
    return (retest.changes["steps"], retest.run.config.sleep.passes) == (steps, trained)


def test_a_window_that_does_not_divide_the_context_is_refused() -> None:
    config = load_experiment(ROOT / "recipes" / "rule110-mini.toml")
    assert retask(config, {"sleep.window": config.sleep.window})[0] == config
    with pytest.raises(ValueError, match=r"sleep.window is 7, but task rule110 has a context of"):
        retask(config, {"sleep.window": 7})
