"""The figure and table of what an answer costs say what is counted, trained or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recorded_runs import make_record, make_summary
from slowwave.experiment import load_experiment
from slowwave.lab.reproduction.figures import SCALES, FigureConfig, Scale, read_figures
from slowwave.lab.reproduction.question_cost import (
    QUESTIONS,
    QuestionCost,
    Way,
    draw_question_costs,
    find_ways,
    question_cost,
    question_cost_table,
    write_question_costs,
)
from slowwave.lab.reproduction.runs import PlannedRun, plan_runs
from slowwave.storage.json_files import write_json
from slowwave.tasks import make_task

ROOT = Path(__file__).parents[3]
RECIPE = 'name = "tiny"\n[task]\nname = "depo"\n[sleep]\nwindow = 20\n'
NAME = "n{sleep.passes}-wake{sleep.wake_passes}-seed{train.seed}"
WAYS = [
    Way("n4", 4, QuestionCost(4_000_000_000, 10_000_000), "100.0%"),
    Way("n1", 1, QuestionCost(1_000_000_000, 10_000_000), "41.7%"),
    Way("wake", 1, QuestionCost(1_000_000_000, 40_000_000), "not run"),
    Way("frozen", 4, QuestionCost(4_000_000_000, 10_000_000), "not run"),
    Way("deep", 1, QuestionCost(4_000_000_000, 40_000_000), "not run"),
]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[PlannedRun]:
    """N = 2, N = 1, and N = 1 with two wake passes, two seeds each; none is trained."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "tiny.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    entry: dict[str, Any] = {"recipe": "tiny", "name": NAME}
    slept = {**entry, "each": {"sleep": {"passes": [2, 1]}}}
    looped = {**entry, "set": {"sleep": {"wake_passes": 2}}}
    values = {"title": "Tiny", "shows": "Nothing.", "mini": [slept, looped]}
    return plan_runs(FigureConfig.from_dict(values), "mini", seeds=2)


def test_every_way_is_counted_by_its_own_config(runs: list[PlannedRun]) -> None:
    ways = find_ways(runs)
    assert [way.name for way in ways] == ["n2-wake1", "n1-wake1", "n1-wake2"]
    for way, (passes, wake_passes) in zip(ways, [(2, 1), (1, 1), (1, 2)], strict=True):
        overrides = {"sleep.passes": passes, "sleep.wake_passes": wake_passes}
        config = load_experiment("recipes/tiny.toml", overrides)
        assert way.cost == question_cost(make_task(config.task), config.model, config.sleep)
        assert (way.passes, way.exact) == (passes, "not run")


def test_recorded_scores_stand_beside(runs: list[PlannedRun]) -> None:
    for run in runs:
        if run.config.sleep.passes == 2:
            test = [make_record(2, 0.5 + run.config.train.seed / 4, {})]
            write_json(run.folder / "config.json", run.config.to_dict())
            write_json(run.folder / "summary.json", make_summary(2, test))
    scores = [way.exact for way in find_ways(runs)]
    assert scores == ["62.5% (50.0 to 75.0)", "not run", "not run"]


def test_both_files_are_written_where_nothing_is_trained(runs: list[PlannedRun]) -> None:
    written = write_question_costs(runs)
    assert [path.as_posix() for path in written] == [
        "results/tiny/question-cost.png",
        "results/tiny/question-cost.md",
    ]
    text = written[1].read_text()
    assert text.startswith("tiny: contexts of 20 tokens, questions and answers of 2.\n")
    assert written[0].stat().st_size > 1000


def test_the_table_says_where_the_first_way_wins() -> None:
    rows = [line for line in question_cost_table(WAYS, "").splitlines() if line.startswith("|")]
    cells = {row.split(" | ")[0].removeprefix("| "): row.split(" | ") for row in rows}
    assert cells["n4"][1:9] == ["4", "0.01", "4.01", "1.01", "0.26", "0.0725", "0.0256", "0.0139"]
    assert {name: cells[name][-2] for name in ("n4", "n1", "wake", "frozen", "deep")} == {
        "n4": "",
        "n1": "never",
        "wake": "from 101",
        "frozen": "the same",
        "deep": "always",
    }


def test_lines_are_the_costs_and_equal_ones_are_one() -> None:
    axes = draw_question_costs(WAYS, "").axes[0]
    lines = {str(line.get_label()): line for line in axes.get_lines()}
    labels = [label for label in lines if not label.startswith("_")]
    shared = "n4 (100.0%), frozen (not run)"
    assert labels == [shared, "n1 (41.7%)", "wake (not run)", "deep (not run)"]
    np.testing.assert_array_equal(np.asarray(lines[shared].get_xdata()), QUESTIONS)
    expected = [4 / n + 0.01 for n in QUESTIONS]
    np.testing.assert_allclose(np.asarray(lines[shared].get_ydata()), expected)
    (circle,) = (line for label, line in lines.items() if label.startswith("_"))
    assert np.asarray(circle.get_xdata()).tolist() == [101]


@pytest.mark.parametrize("scale", SCALES)
def test_the_costs_of_this_repository_are_up_to_date(
    scale: Scale, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    runs = plan_runs(read_figures()["baselines"], scale, seeds=1)
    kept = (runs[0].folder.parent / "question-cost.md").read_text(encoding="utf-8")
    written = question_cost_table(find_ways(runs), "")
    assert _costs(kept) == _costs(written), "write it: slowwave reproduce --redraw"


def _costs(table: str) -> list[list[str]]:
    """The rows of a table without their scores."""
    return [line.split(" | ")[:-1] for line in table.splitlines() if line.startswith("|")]
