"""docs/extending.md: each of its examples is written down where a user would, and used."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slowwave import cli, tasks
from slowwave.experiment import load_experiment, load_run

PAGE = (Path(__file__).parent.parent / "docs" / "extending.md").read_text(encoding="utf-8")
TINY = [
    *("--model.width", "16", "--model.mlp-hidden", "16", "--model.attn-heads", "2"),
    *("--train.steps", "2", "--train.batch-size", "4", "--train.eval-examples", "4"),
    *("--train.test-examples", "8", "--train.no-compile", "--train.precision", "float32"),
]


def read_examples(heading: str, language: str) -> list[str]:
    """The code blocks of a section of the page."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that Python imports from; what was imported is forgotten in the end."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]


def write_task(folder: Path) -> tuple[str, str]:
    """The recipe of the page, and the entry point; my_task.py is in the folder."""
    (folder / "my_task.py").write_text("\n\n".join(read_examples("A task", "python")))
    recipe, project = read_examples("A task", "toml")
    return recipe, project


def test_a_task_of_another_module_is_trained(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, _ = write_task(folder)
    (folder / "copy.toml").write_text(recipe)
    run = folder / "run"
    train = ["train", str(folder / "copy.toml"), *TINY, "--task.symbols", "5", "--out", str(run)]
    cli.main([*train, "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert summary["step"] == 2
    assert summary["floors"] == {"guess": 5**-6}
    cli.main([*train, "--json"])  # the run is found again
    assert json.loads(capsys.readouterr().out) == summary

    config, _, task = load_run(run)
    recorded = json.loads((run / "config.json").read_text())["task"]
    assert recorded == {"name": "my_task:Copy", "symbols": 5, "length": 6}
    assert config.task.to_dict() == recorded
    assert task.config is config.task

    cli.main(["eval", str(run), "--set", "length=12", "--examples", "8", "--json"])
    scored = json.loads(capsys.readouterr().out)
    assert list(scored["test"][0]["groups"]) == [str(place) for place in range(12)]
    with pytest.raises(SystemExit):
        cli.main(["eval", str(run), "--set", "lenght=12"])
    assert "task.lenght: unknown key in CopyConfig; did you mean length" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["export", str(run), str(folder / "model")])
    assert "was trained on my_task:Copy, which is no text" in capsys.readouterr().err


def test_a_task_of_another_module_shows_examples(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_task(folder)
    cli.main(["tasks", "my_task:Copy", "--set", "symbols=3", "--show", "2", "--split", "test"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[::3] == ["my_task:Copy test 0", "my_task:Copy test 1", "floors: guess 0.0%"]
    assert lines[2] == f"  again: {lines[1].strip()}"


def test_a_text_belongs_to_one_split(folder: Path) -> None:
    write_task(folder)
    config = tasks.read_section({"name": "my_task:Copy", "symbols": 2, "length": 12})
    task = tasks.make_task(config)
    texts = [
        {tuple(row) for row in task.batch(split, range(400)).stream.inputs[:, :12].tolist()}
        for split in ("train", "validation", "test")
    ]
    assert sum(map(len, texts)) == len(set.union(*texts)) > 500
    batch = task.batch("train", [3, 4]).stream
    assert task.batch("train", [4]).stream.inputs.tolist() == batch.inputs[1:].tolist()
    assert batch.targets[:, 12:].tolist() == batch.inputs[:, :12].tolist()


def test_a_registered_task_has_a_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, project = write_task(folder)
    found = re.search(r'^copy = "(.*)"$', project, re.MULTILINE)
    assert found is not None
    assert '[project.entry-points."slowwave.tasks"]' in project
    installed = folder / "my_task-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: my_task\nVersion: 1\n")
    (installed / "entry_points.txt").write_text(f"[slowwave.tasks]\ncopy = {found[1]}\n")
    (folder / "copy.toml").write_text(recipe.replace("my_task:Copy", "copy"))

    config = load_experiment(folder / "copy.toml")
    assert (config.task.name, type(config.task).__name__) == ("copy", "CopyConfig")
    cli.main(["tasks", "--json"])
    listed = json.loads(capsys.readouterr().out)
    assert [*listed] == [*tasks.BUILT_IN, "copy"]
    assert listed["copy"] == {
        "about": "Say again what was read, symbol by symbol.",
        "defaults": {"name": "copy", "symbols": 8, "length": 8},
    }
    with pytest.raises(ValueError, match=r"^unknown task 'coppy'; did you mean copy\? use one of"):
        tasks.find_task("coppy")

    (folder / "my_task.py").write_text("import nothing_of_the_kind")
    del sys.modules["my_task"]
    cli.main(["tasks", "--json"])
    listed = json.loads(capsys.readouterr().out)
    assert listed["copy"]["about"].startswith("my_task of task 'copy' cannot be imported (No mod")


def test_a_task_of_the_package_is_two_files_and_a_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, task = read_examples("A task", "python")
    name = 'name: Literal["copy"] = "copy"'
    line = re.search(r'`"copy": (\(.*\)),`', PAGE)
    assert line is not None
    assert name in PAGE
    package = folder / "copy"
    package.mkdir()
    config = config.replace('name: str = "my_task:Copy"', name)
    config = config.replace("import data", "from typing import Literal\nimport data", 1)
    (package / "__init__.py").write_text(config)
    (package / "task.py").write_text(f"from slowwave.tasks.copy import CopyConfig\n{task}")
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(folder)])
    monkeypatch.setitem(tasks.BUILT_IN, "copy", eval(line[1]))
    importlib.invalidate_caches()

    made = tasks.make_task(tasks.read_section({"name": "copy", "length": 9}))
    assert made.batch("train", [0]).stream.inputs.shape == (1, 18)
