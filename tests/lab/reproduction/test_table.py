"""results/README.md and the curves of a figure say what the recorded runs hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recorded_runs import make_record, make_score, make_summary
from slowwave.lab.reproduction.drawings import draw_curves
from slowwave.lab.reproduction.figures import SCALES, FigureConfig, Scale, read_figures
from slowwave.lab.reproduction.runs import plan_runs
from slowwave.lab.reproduction.table import find_curves, results_readme
from slowwave.lab.run_results import find_runs
from slowwave.storage.json_files import write_json
from slowwave.training.run_folder import RunFolder

ROOT = Path(__file__).parents[3]
RECIPE = 'name = "tiny"\n[task]\nname = "depo"\n[sleep]\nwindow = 20\n'
ENTRY = {
    "recipe": "tiny",
    "name": "n{sleep.passes}-seed{train.seed}",
    "each": {"sleep": {"passes": [1, 2]}},
}
TOKENS = (100, 200, 300)
FIGURE = FigureConfig.from_dict(
    {
        "title": "Tiny",
        "shows": "Nothing.",
        "source": "nowhere",
        "curve_by": "sleep.passes",
        "mini": [ENTRY],
        "paper": [ENTRY],
        "targets": [
            {"what": "all", "where": {"sleep": {"passes": 1}}, "value": 0.5},
            {"what": "hop 2", "where": {"sleep": {"passes": 1}}, "value": 1.7, "score": "loss"}
            | {"group": "2"},
            {"what": "early", "where": {"sleep": {"passes": 1}}, "value": 0.1, "tokens": 190},
            {"what": "more", "where": {"sleep": {"passes": 8}}, "value": 0.9},
        ],
        "points": [
            {"where": {"sleep": {"passes": 2}}, "tokens": [1e6, 2e6], "exact": [0.25, 0.75]}
        ],
    }
)


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds 0 and 1 of N = 1."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "tiny.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    for run in plan_runs(FIGURE, "paper", seeds=2):
        if run.config.sleep.passes == 1:
            _record(run.folder, run.config.to_dict(), exact=0.4 + 0.2 * run.config.train.seed)


def _record(folder: Path, config: dict[str, Any], *, exact: float) -> None:
    write_json(folder / "config.json", config)
    run = RunFolder(folder)
    for place, tokens in enumerate(TOKENS, 1):
        scores = make_record(1, exact * place / 4, {})
        run.append_metrics(
            {"step": place, "tokens": tokens, "flops": tokens * 10**12, "seconds": 1.0}
            | {"evaluation": scores}
        )
    test = [make_record(1, exact, {"2": make_score(exact, loss=2 * exact)})]
    floors = {"chance": 0.11, "bit": 0.5}
    flops = round(3000e12 * (exact + 1))
    run.write_summary(make_summary(1, test, flops=flops, floors=floors, group_name="hop"))


def test_the_file_of_this_repository_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    written = Path("results/README.md").read_text(encoding="utf-8")
    assert written == results_readme(read_figures()), "write it: slowwave reproduce --redraw"


def test_every_recorded_run_has_its_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    readme = Path("results/README.md").read_text(encoding="utf-8")
    for run in find_runs(Path("results")):
        assert f"({run.folder.relative_to('results').as_posix()})" in readme


def test_rows_hold_the_paper_ours_and_what_has_not_run(recorded: None) -> None:
    figures = {"figA": FIGURE, "figB": FigureConfig(title="B", shows="B", mini=FIGURE.mini)}
    rows = [line for line in results_readme(figures).splitlines() if line.startswith("|")]
    ours = "2 of 3 | [0](tiny/n1-seed0), [1](tiny/n1-seed1) |"
    half = "50.0% (40.0 to 60.0) | chance 11.0%"
    assert rows[2:] == [
        f"| figA | paper | all | 50.0% | {half} | 4,500.0 | {ours}",
        f"| figA | paper | hop 2 | 1.70 nats | 1.00 nats (0.80 to 1.20) |  | 4,500.0 | {ours}",
        f"| figA | paper | early | 10.0% | 25.0% (20.0 to 30.0) | chance 11.0% | 200.0 | {ours}",
        "| figA | paper | more | 90.0% | not run |  |  |  |  |",
        "| figA | paper | tiny, N = 2 |  | not run |  |  | 0 of 3 |  |",
        f"| figA, figB | mini | tiny, N = 1 |  | {half} | 4,500.0 | {ours}",
        "| figA, figB | mini | tiny, N = 2 |  | not run |  |  | 0 of 3 |  |",
    ]


def test_what_others_start_from_has_no_rows_of_tests(recorded: None) -> None:
    later = {
        "recipe": "tiny",
        "name": "later",
        "seeds": 1,
        "set": {"train": {"start_from": "results/tiny/n1-seed0"}, "sleep": {"passes": 4}},
    }
    figure = {"title": "A", "shows": "A", "mini": [{**ENTRY, "seeds": 1}, later]}
    tests = {"retests": [{"name": "longer", "set": {"hops": 9}, "examples": 4}]}
    text = results_readme({"figA": FigureConfig.from_dict({**figure, **tests})})
    start = "train.start_from=results/tiny/n1-seed0"
    assert [line.split(" | ")[2] for line in text.splitlines() if "tested with" in line] == [
        "tiny, N = 2, tested with longer",
        f"tiny, N = 4 {start}, tested with longer",
    ]


def test_a_curve_of_two_figures_is_one(recorded: None) -> None:
    curves = find_curves({"figA": FIGURE, "figB": FIGURE})
    assert [(curve.scale, curve.figures, len(curve.runs)) for curve in curves] == [
        (scale, ["figA", "figB"], 3) for scale in ("mini", "mini", "paper", "paper")
    ]


@pytest.mark.parametrize("scale", SCALES)
def test_curves_are_those_of_the_files_and_of_the_paper(recorded: None, scale: Scale) -> None:
    figure = draw_curves(FIGURE, scale, find_runs(Path("results")))
    lines = {
        str(line.get_label()): np.array([line.get_xdata(), line.get_ydata()], dtype=np.float64)
        for line in figure.axes[0].get_lines()
    }
    expected = [[1e-4, 2e-4, 3e-4], [0.125, 0.25, 0.375]]
    np.testing.assert_allclose(lines["N = 1"], expected)
    assert ("paper, N = 2" in lines) == (scale == "paper")
    if scale == "paper":
        np.testing.assert_allclose(lines["paper, N = 2"], [[1, 2], [0.25, 0.75]])
    floors = [line[1] for label, line in lines.items() if label.startswith("_")]
    assert [0.11, 0.11] in [list(floor) for floor in floors]
