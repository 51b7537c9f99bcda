"""The README says what the recorded runs hold, and what it shows can be run."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from slowwave import cli
from slowwave.lab.run_results import Run, find_runs, find_variants, group_spreads

ROOT = Path(__file__).parent.parent
SCORES = ("exact", "sampled", "token_accuracy")
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_python_examples_print_what_they_say(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    source = "".join(examples)
    exec(compile(source, page, "exec"), {})
    expected = re.findall(r"^ *print\(.*\)  # (.+)$", source, re.MULTILINE)
    assert expected
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line in expected] == expected


def test_every_command_it_names_is_there() -> None:
    named = set(re.findall(r"`slowwave (\w+)", README))
    assert named == set(cli.COMMANDS)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_its_lines_about_a_memory_work_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In order, by somebody who says yes where they are asked."""
    found = re.search(r"```\n(source \.venv/bin/activate\n.*?)```", README, re.DOTALL)
    assert found is not None
    _, notes, *lines = found.group(1).splitlines()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    subprocess.run(notes, shell=True, check=True)
    shown = {}
    for line in lines:
        monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
        name, *arguments = shlex.split(line)
        assert name == "slowwave"
        cli.main(arguments)
        shown[" ".join(arguments[:2])] = capsys.readouterr().out
    assert len(lines) == len(shown) == 7
    assert "notes.txt" in shown["memory show"]
    assert shown["memory probe"].count("Your cat is called Milo.") == 2
    assert shown["memory forget"].endswith("forgotten\n")


@pytest.mark.parametrize("target", ["demo", "chat", "serve"])
def test_make_says_how_to_call_slowwave_without_it(target: str, tmp_path: Path) -> None:
    """And installs what all of the README's lines need; nothing is run here."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    command = ["make", "--dry-run", target]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "pip install -c constraints.txt  -e '.[plot,text,serve]'" in done.stdout
    assert "work after: source .venv/bin/activate" in done.stdout
    assert ".venv/bin/activate" in README


def test_nothing_says_to_install_it_from_an_index() -> None:
    """It is in none."""
    pages = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "src").rglob("*.py"),
    ]
    wrong = re.compile(r"(?:pip )?install '?slowwave(?!\w)|slowwave\[")
    assert [page.name for page in pages if wrong.search(page.read_text("utf-8"))] == []


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def _cells(runs: list[Run]) -> list[str]:
    """A row of the README's table: a mean for each hop, the spread over all hops, the cost."""
    exact = [run.exact for run in runs]
    return [
        *(f"{spread.mean:.1%}" for spread in group_spreads(runs).values()),
        _spread(exact),
        f"{runs[0].summary['flops'] / 1e12:.1f}",
    ]


def _row(start: str) -> list[str]:
    found = re.search(rf"^\| {start}[^|]*\|(.*)\|$", README, re.MULTILINE)
    assert found is not None, start
    return [cell.strip() for cell in found.group(1).split("|")]


def _spread(values: list[float]) -> str:
    """ "95.0% (90.0 to 100.0)", or "95.0%" if all are that."""
    low, high = f"{100 * min(values):.1f}", f"{100 * max(values):.1f}"
    return f"{sum(values) / len(values):.1%}" + (f" ({low} to {high})" if low != high else "")


def _rule110_cells(runs: list[Run]) -> list[str]:
    """A row of the table of Rule 110: tokens, cost, and the three ways to score."""
    return [
        f"{runs[0].summary['tokens'] / 1e6:.1f} M",
        f"{runs[0].summary['flops'] / 1e12:.1f}",
        *(_spread([run.overall[key] for run in runs]) for key in SCORES),
    ]


def test_the_rule110_table_is_what_the_runs_hold() -> None:
    base, *others = find_variants(find_runs(ROOT / "results" / "rule110-mini"))
    by_name = {variant.name: list(variant.runs) for variant in others}
    assert _row("one pass, N = 1") == _rule110_cells(base.by_passes[1])
    assert _row("sleep, N = 4") == _rule110_cells(base.by_passes[4])
    assert _row("N = 1, on more tokens") == _rule110_cells(by_name["train.steps=4594"])
    assert _row("N = 4, embeddings") == _rule110_cells(by_name["recirculate=embedding"])
    floors = base.runs[0].summary["floors"]
    shown = [f"{floors[name]:.1%}" for name in ("constant", "marginal", "bit")]
    assert _row("the best constant answer") == ["", "", *shown]


def test_the_table_at_the_papers_size_is_what_the_runs_hold() -> None:
    runs = find_runs(ROOT / "results" / "rule110")
    for run in runs:
        scores = [f"{run.overall[key]:.1%}" for key in SCORES]
        floors = [f"{run.summary['floors'][name]:.1%}" for name in ("constant", "marginal", "bit")]
        tokens = f"{run.summary['tokens'] / 1e6:.1f} M"
        shown = [f"{score} ({floor})" for score, floor in zip(scores, floors, strict=True)]
        assert _row(f"t = {run.settings['task.steps']}")[:4] == [tokens, *shown]
    assert sorted(run.settings["task.steps"] for run in runs) == [8, 12]


def test_the_depo_table_is_what_the_runs_hold() -> None:
    base, *others = find_variants(find_runs(ROOT / "results" / "depo-mini"))
    assert list(base.by_passes) == [1, 2, 3, 4]
    for passes, runs in base.by_passes.items():
        assert len(runs) == 3
        assert _row(f"N = {passes}") == _cells(runs)
    (in_a_row,) = (v for v in others if v.name == "layout=row")
    exact = {passes: runs[0].exact for passes, runs in in_a_row.by_passes.items()}
    assert f"N = 4 {exact[4]:.1%}, N = 1 {exact[1]:.1%}." in README
    assert f"{in_a_row.floors['copy']:.1%}), one seed" in README
    (searched,) = (v for v in others if v.name == "steps=2440 muon_lr=0.005")
    assert _row("plain eviction, FLOPs of N = 4") == _cells(list(searched.runs))
