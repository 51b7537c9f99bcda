"""A training run on the command line: what it says at once, and what Ctrl-C leaves."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slowwave import cli, experiment, status_line

ROOT = Path(__file__).parents[2]
MINI = ROOT / "recipes" / "depo-mini.toml"
RECORDED = ROOT / "results" / "depo-mini" / "n4-seed0"
SHIPPED = ROOT / "checkpoints" / "depo-mini" / "n1"
TINY = [
    *("--model.width", "16", "--model.mlp-hidden", "16", "--model.attn-heads", "2"),
    *("--task.nodes", "6", "--task.hops", "2", "--task.questions", "3", "--sleep.window", "12"),
    *("--train.steps", "2", "--train.batch-size", "4", "--train.eval-examples", "4"),
    *("--train.test-examples", "8", "--train.no-compile", "--train.precision", "float32"),
]
Call = Callable[..., str]


def train(*options: object) -> None:
    cli.main(["train", str(MINI), *TINY, "--out", "run", *map(str, options)])


def stop(*_: object, **__: object) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["build", "score"])
def test_ctrl_c_leaves_one_sentence(
    where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(experiment, where, stop)
    with pytest.raises(SystemExit) as exit_:
        train()
    assert exit_.value.code == 130
    *_, last = capsys.readouterr().err.splitlines()
    saved = {"build": 0, "score": 2}[where]
    assert last == (
        f"slowwave: interrupted; {saved} of 2 steps are saved in run, and the same command goes on "
        "from there"
    )


def test_where_a_run_stands_is_said_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "score", stop)
        with pytest.raises(SystemExit):
            train()
    capsys.readouterr()

    def look(*_: object, **__: object) -> dict[str, Any]:
        said = capsys.readouterr().err
        assert said == "run: trained already, 2 steps; only scoring is left\n"
        return stop()

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "run_training", look)
        with pytest.raises(SystemExit):
            train()
    train("--json")
    capsys.readouterr()
    train()
    assert capsys.readouterr().err == "run: finished already, 2 steps\nrun folder: run\n"


def test_a_finished_run_needs_no_torch(folder: Path) -> None:
    shutil.copytree(RECORDED, folder / "run")
    code = (
        "import sys; from slowwave import cli; cli.main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", code, "train", str(MINI), "--out", "run", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "run: finished already, 1,500 steps\n")
    assert done.stdout.startswith('{"name": "depo-mini"')


def test_other_options_are_named_alone(refusal: Call, folder: Path) -> None:
    shutil.copytree(RECORDED, folder / "run")
    sentence = refusal("train", MINI, "--out", "run", "--train.steps", 100, "--sleep.passes", 2)
    assert sentence == (
        "run: sleep.passes is 2 here and 4 in the run, train.steps is 100 here and 1500 in the "
        "run; use another --out, or the options of the run\n"
    )


def test_a_pipe_is_told_of_steps_and_of_scoring(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status_line, "FIRST_SECONDS", 0)
    train()
    told = capsys.readouterr().err
    lines = told.splitlines()
    assert lines[0] == "loading what the run in run takes"
    assert lines[1].startswith("step 1/2  tokens 0.00M  loss ")
    assert "scoring the validation split, N = 4: 0 of 4 examples" in lines
    for passes in (1, 2, 3, 4):
        assert f"scoring the test split, N = {passes}: 8 of 8 examples" in lines
    assert all(line.isprintable() for line in lines)


def test_eval_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status_line, "FIRST_SECONDS", 0)
    cli.main(["eval", str(SHIPPED), "--examples", "65", "--json"])
    assert capsys.readouterr().err.splitlines() == [
        f"loading {SHIPPED}",
        *(f"scoring the test split, N = 1: {done} of 65 examples" for done in (0, 64, 65)),
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "run/config.json: not valid JSON"),
        ("[]", "run: has a config.json that is not of a run"),
        ('{"name": 3}', "run: has a config.json that is not of a run"),
    ],
)
@pytest.mark.parametrize("command", [["eval"], ["probe"], ["export"]])
def test_a_damaged_config_is_told_by_its_file(
    command: list[str], content: str, sentence: str, refusal: Call, folder: Path
) -> None:
    shutil.copytree(SHIPPED, folder / "run")
    (folder / "run" / "config.json").write_text(content)
    out = ["out"] if command == ["export"] else []
    assert sentence in refusal(*command, "run", *out)
