"""What is printed means what it says, whatever names and paths hold."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from slowwave.commands import doctor
from slowwave.console import PlainConsole
from slowwave.evaluation.tables import print_summary
from slowwave.experiment import ExperimentConfig
from slowwave.lab.bench.report import Row, Section, section_table
from slowwave.lab.reproduction.runs import PlannedRun
from slowwave.lab.reproduction.workers import TrainingProgress
from slowwave.tasks.depo import DepoConfig

NAME = "a[red]b[/] :cat: [bold]"
ROOT = Path(__file__).parents[1]


def test_brackets_and_colons_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(title=NAME, caption=NAME)
    table.add_column(NAME)
    table.add_row(NAME)
    PlainConsole().print(NAME)
    PlainConsole().print(table)
    PlainConsole(stderr=True).print(NAME)
    printed = capsys.readouterr()
    assert printed.out.count(NAME) == 5
    assert printed.err == f"{NAME}\n"


def test_a_reader_who_left_is_an_error_of_its_own() -> None:
    with pytest.raises(BrokenPipeError):
        PlainConsole().on_broken_pipe()


def test_doctor_says_which_extra_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: f"/opt/[red]/{name}")
    doctor.run([])
    shown = capsys.readouterr().out
    assert "/opt/[red]/g++" in shown
    for extra in ("plot", "text", "models", "serve", "bench", "eval", "cuda"):
        assert f"pip install -e '.[{extra}]'" in shown


def test_tables_of_scores_and_benchmarks_keep_brackets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    summary = json.loads((ROOT / "results" / "depo-mini" / "n1-seed0" / "summary.json").read_text())
    print_summary({**summary, "name": NAME})
    section = Section(title=NAME, rows=[Row(what=NAME, by="us", count=1)], notes=[NAME])
    PlainConsole().print(section_table(section))
    shown = capsys.readouterr().out
    assert shown.count(NAME) == 4, shown


class Screen(io.StringIO):
    """A terminal, as far as bars ask."""

    def isatty(self) -> bool:
        return True


def test_bars_of_runs_keep_brackets() -> None:
    shown = Screen()
    run = PlannedRun("tiny", "[red]x", {}, ExperimentConfig(name="tiny", task=DepoConfig()))
    console = PlainConsole(file=shown, force_terminal=True, width=120)
    with TrainingProgress([run], console) as progress:
        progress.start(run)
    text = Text.from_ansi(shown.getvalue()).plain
    assert f"{run.folder}: started" in text
    assert f"{run.folder} " in text
