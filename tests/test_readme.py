"""The README says what the recorded runs hold, and what it shows can be run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from slowwave import cli
from slowwave.evaluation.run_results import find_runs, find_variants, group_spreads

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    found = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert found is not None
    exec(compile(found.group(1), "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("1 0 0\n")


def test_every_command_it_names_is_there() -> None:
    named = set(re.findall(r"`slowwave (\w+)", README))
    assert named == set(cli.COMMANDS)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_the_table_is_what_the_runs_hold() -> None:
    base = find_variants(find_runs(ROOT / "results" / "depo-mini"))[0]
    rows = re.findall(r"^\| N = (\d)[^|]*\|(.*)\|$", README, re.MULTILINE)
    assert [int(passes) for passes, _ in rows] == sorted(base.by_passes)
    for passes, cells in rows:
        runs = base.by_passes[int(passes)]
        *hops, overall, flops = (cell.strip() for cell in cells.split("|"))
        means = [f"{spread.mean:.1%}" for spread in group_spreads(runs).values()]
        assert hops == means
        exact = [run.exact for run in runs]
        spread = f"({100 * min(exact):.1f} to {100 * max(exact):.1f})"
        assert overall == f"{sum(exact) / len(exact):.1%} {spread}"
        assert flops == f"{runs[0].summary['flops'] / 1e12:.1f}"
        assert len(runs) == 3
