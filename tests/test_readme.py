"""README and findings say what the recorded runs hold; commands and code shown can be run."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from slowwave import cli
from slowwave.lab.run_results import Run, Variant, find_runs, find_variants, group_spreads

ROOT = Path(__file__).parent.parent
SCORES = ("exact", "sampled", "token_accuracy")
README = (ROOT / "README.md").read_text(encoding="utf-8")
FINDINGS = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")


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


@pytest.mark.parametrize("target", ["demo", "chat", "talk", "serve"])
def test_make_says_how_to_call_slowwave_without_it(target: str, tmp_path: Path) -> None:
    """And installs what all of the README's lines need; nothing is run here."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    command = ["make", "--dry-run", target]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "pip install -c constraints.txt  -e '.[plot,text,models,serve]'" in done.stdout
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


@pytest.mark.parametrize("page", ["README.md", "docs/findings.md"])
def test_every_link_leads_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text("utf-8")):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def _row(page: str, first: str) -> list[str]:
    """The other cells of the one table row with this first cell."""
    (found,) = re.findall(rf"^\| {re.escape(first)} \|(.*)\|$", page, re.MULTILINE)
    return [cell.strip() for cell in found.split("|")]


def _spread(values: list[float]) -> str:
    """ "95.0% (90.0 to 100.0)", or "95.0%" if all are that."""
    low, high = f"{100 * min(values):.1f}", f"{100 * max(values):.1f}"
    return f"{sum(values) / len(values):.1%}" + (f" ({low} to {high})" if low != high else "")


def _variants(task: str) -> tuple[Variant, dict[str, list[Run]]]:
    """The base of a recipe, and the runs of the others by name."""
    base, *others = find_variants(find_runs(ROOT / "results" / task))
    return base, {variant.name: list(variant.runs) for variant in others}


def _exact(runs: list[Run]) -> str:
    return _spread([run.exact for run in runs])


def _teraflops(runs: list[Run]) -> str:
    return f"{runs[0].summary['flops'] / 1e12:.1f}"


def _recorded(table: str, column: str, **fixed: str) -> str:
    """A cell of a recorded table: of its one row where the columns named have these values."""
    text = (ROOT / "results" / table).read_text(encoding="utf-8")
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    fixed = {name.replace("_", " "): value for name, value in fixed.items()}
    (row,) = (row for row in rows if fixed.items() <= dict(zip(header, row, strict=True)).items())
    return row[header.index(column)]


def test_the_table_in_the_readme_is_what_the_runs_hold() -> None:
    tested = {
        "Depo: the node 1 to 6 hops on": ("depo-mini", "chance", ["steps=2440 muon_lr=0.005"]),
        "Rule 110: four steps of an automaton": ("rule110-mini", "constant", ["train.steps=4594"]),
        "GSM-Infinite: small word problems": ("gsm-infinite-mini", "constant", []),
        "facts, up to 4 windows later": ("recall-mini", "constant", []),
    }
    for start, (task, floor, more) in tested.items():
        base, others = _variants(task)
        assert _row(README, start) == [
            f"{base.floors[floor]:.1%}",
            *(_exact(base.by_passes[passes]) for passes in (1, 2, 4)),
            *([_exact(others[name]) for name in more] or [""]),
        ]


def test_the_rows_about_many_windows_are_what_is_recorded() -> None:
    base, _ = _variants("recall-mini")
    (told,) = base.group_floors.values()
    table, column = "recall-mini/many-windows.md", "windows ago 128"
    facts = [_recorded(table, column, test="128 windows, 8 facts", trained_N=n) for n in "124"]
    assert _row(README, "the same models, 128 windows later") == [f"{told:.1%}", *facts, ""]
    table, column = "talk/talk.md", "windows ago 64-127"
    test = "128 windows, about 10 facts"
    talk = [_recorded(table, column, test=test, trained_N=n) for n in "14"]
    assert _row(README, "facts in plain English, 64 to 127 windows later") == [
        "",
        talk[0],
        "",
        talk[1],
        "",
    ]


def test_what_the_readme_says_beside_its_table_is_what_the_runs_hold() -> None:
    text = " ".join(README.split())
    depo, _ = _variants("depo-mini")
    rule110, others = _variants("rule110-mini")
    costs = [_teraflops(base.by_passes[n]) for n in (4, 1) for base in (depo, rule110)]
    assert "{} TFLOP on Depo and {} on Rule 110, N = 1 {} and {}.".format(*costs) in text
    (more,), four = others["train.steps=4594"], rule110.by_passes[4][0]
    tokens, flops = (more.summary[key] / four.summary[key] for key in ("tokens", "flops"))
    assert f"in Rule 110 {tokens:.1f} times its tokens and {flops:.2f} times its FLOPs" in text
    scores = {run.settings["task.steps"]: run for run in find_runs(ROOT / "results" / "rule110")}
    assert f"reproduced for N = 1 ({scores[8].exact:.1%})" in text
    assert f"t = 12 is not ({scores[12].exact:.1%}" in text


def test_the_depo_table_is_what_the_runs_hold() -> None:
    def cells(runs: list[Run]) -> list[str]:
        hops = [f"{spread.mean:.1%}" for spread in group_spreads(runs).values()]
        return [*hops, _exact(runs), _teraflops(runs)]

    base, others = _variants("depo-mini")
    assert list(base.by_passes) == [1, 2, 3, 4]
    for passes, runs in base.by_passes.items():
        assert len(runs) == 3
        name = "N = 1 (plain eviction)" if passes == 1 else f"N = {passes}"
        assert _row(FINDINGS, name) == cells(runs)
    in_a_row = {run.passes: run for run in others["layout=row"]}
    exact = {passes: run.exact for passes, run in in_a_row.items()}
    text = " ".join(FINDINGS.split())
    assert f"One seed each: N = 4 {exact[4]:.1%}, N = 1 {exact[1]:.1%}." in text
    assert f"guessing the rest scores {in_a_row[1].summary['floors']['copy']:.1%}." in text
    searched = others["steps=2440 muon_lr=0.005"]
    assert _row(FINDINGS, "plain eviction, FLOPs of N = 4") == cells(searched)


def test_the_rule110_table_is_what_the_runs_hold() -> None:
    def cells(runs: list[Run]) -> list[str]:
        tokens = f"{runs[0].summary['tokens'] / 1e6:.1f} M"
        scores = [_spread([run.overall[key] for run in runs]) for key in SCORES]
        return [tokens, _teraflops(runs), *scores]

    base, others = _variants("rule110-mini")
    assert _row(FINDINGS, "one pass, N = 1") == cells(base.by_passes[1])
    assert _row(FINDINGS, "sleep, N = 4") == cells(base.by_passes[4])
    assert _row(FINDINGS, "N = 1, on more tokens") == cells(others["train.steps=4594"])
    assert _row(FINDINGS, "N = 4, embeddings recirculate") == cells(others["recirculate=embedding"])
    floors = base.runs[0].summary["floors"]
    shown = [f"{floors[name]:.1%}" for name in ("constant", "marginal", "bit")]
    assert _row(FINDINGS, "the best constant answer") == ["", "", *shown]


def test_the_scores_by_steps_are_what_the_runs_hold() -> None:
    base, others = _variants("rule110-mini")
    by_steps = {4: base.by_passes[1]}
    for steps in (2, 3, 5, 6):
        by_steps[steps] = [run for run in others[f"task.steps={steps}"] if run.passes == 1]
    means = [_exact(by_steps[steps]).split("%")[0] for steps in (2, 3, 4, 5, 6)]
    text = " ".join(FINDINGS.split())
    assert f"t = 2 / 3 / 4 / 5 / 6 score {' / '.join(means)}% (three seeds each)" in text
    for steps in (3, 5):
        assert f"t = {steps} {_exact(by_steps[steps]).split('(')[1][:-1]}%" in text


def test_the_table_at_the_papers_size_is_what_the_runs_hold() -> None:
    runs = find_runs(ROOT / "results" / "rule110")
    for run in runs:
        scores = [f"{run.overall[key]:.1%}" for key in SCORES]
        floors = [f"{run.summary['floors'][name]:.1%}" for name in ("constant", "marginal", "bit")]
        tokens = f"{run.summary['tokens'] / 1e6:.1f} M"
        shown = [f"{score} ({floor})" for score, floor in zip(scores, floors, strict=True)]
        assert _row(FINDINGS, f"t = {run.settings['task.steps']}")[:4] == [tokens, *shown]
    assert sorted(run.settings["task.steps"] for run in runs) == [8, 12]
