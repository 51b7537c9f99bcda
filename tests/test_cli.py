"""The command line as a stranger meets it: help, JSON, and one-sentence refusals."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from slowwave import cli
from slowwave.tasks import BUILT_IN

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
MINI = str(ROOT / "recipes" / "depo-mini.toml")
TEXT = str(ROOT / "recipes" / "text-mini.toml")
RECALL = str(ROOT / "recipes" / "recall-mini.toml")
SHIPPED = str(ROOT / "checkpoints" / "depo-mini" / "n1")
TALK = str(ROOT / "recipes" / "talk.toml")
MODEL = str(ROOT / "checkpoints" / "talk")
RECORDED = str(ROOT / "results" / "depo-mini" / "n1-seed0")
TINY = [
    *("--model.width", "16", "--model.mlp-hidden", "16", "--model.attn-heads", "2"),
    *("--task.nodes", "6", "--task.hops", "2", "--task.questions", "3", "--sleep.window", "12"),
    *("--train.steps", "2", "--train.batch-size", "4", "--train.eval-examples", "4"),
    *("--train.no-compile", "--train.precision", "float32"),
]


@pytest.fixture(autouse=True)
def _few_test_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slowwave.experiment.TEST_EXAMPLES", 8)


def _refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a command that exits with 2."""
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    assert exit_.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("slowwave: ")
    lines = printed.err.splitlines()  # a slow machine also says what it loads
    assert len([line for line in lines if not line.startswith("slowwave: loading")]) == 1
    return printed.err


def test_help_is_quick_and_imports_no_torch() -> None:
    code = (
        "import sys; from slowwave import cli; cli.main(['--help']); "
        "assert 'torch' not in sys.modules"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    assert all(f"  {name} " in done.stdout for name in cli.COMMANDS)
    assert seconds < 3


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name != "train"])
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main([name, "--help"])
    assert exit_.value.code == 0
    assert f"usage: slowwave {name}" in capsys.readouterr().out


def test_train_help_lists_the_fields_of_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["train", MINI, "--help"])
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    assert "--sleep.passes" in out and "--task.hops" in out and "--train.muon-lr" in out


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_builds(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from slowwave.experiment import build, load_experiment

    monkeypatch.chdir(ROOT)
    config = load_experiment(recipe)
    assert config.name == recipe.stem
    model, task = build(config)
    assert model.config.vocab_size == task.vocab_size


def test_train_eval_and_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    cli.main(["train", MINI, *TINY, "--out", run, "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert summary["step"] == 2
    cli.main(["train", MINI, *TINY, "--out", run, "--json"])
    assert json.loads(capsys.readouterr().out) == summary
    cli.main(["eval", run, "--passes", "1", "3", "--examples", "8", "--json"])
    records = json.loads(capsys.readouterr().out)["test"]
    assert [record["passes"] for record in records] == [1, 3]
    assert records[0] == summary["test"][0]
    cli.main(["eval", run, "--set", "questions=9", "--examples", "2", "--json"])
    assert json.loads(capsys.readouterr().out)["test"][0]["overall"]["answers"] == 18
    cli.main(["eval", run, "--examples", "2"])
    assert "floors" in capsys.readouterr().out


def test_text_is_scored_in_bits_per_byte(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "200")
    run = str(tmp_path / "run")
    sizes = ["--task.context", "40", "--task.piece", "64", "--task.window", "16"]
    sizes += ["--sleep.window", "16", "--sleep.passes", "2", *TINY[:6], *TINY[-9:]]
    cli.main(["train", TEXT, *sizes, "--out", run, "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert summary["bytes_per_token"] == 1.0
    cli.main(["eval", run, "--examples", "8"])
    shown = capsys.readouterr().out
    scores = summary["test"][1]
    assert scores["passes"] == 2
    loss = scores["overall"]["loss"]
    assert loss == pytest.approx(math.log(256), rel=0.5)
    in_bits = [score["loss"] / math.log(2) for score in scores["groups"].values()]
    for value in (loss, loss / math.log(2), *in_bits):
        assert f" {value:.3f} " in shown
    assert "bits per byte" in shown
    assert "token 2-3" in shown


def test_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["tasks"])
    assert "rule110" in capsys.readouterr().out
    cli.main(["tasks", "depo", "--show", "2", "--set", "nodes=7", "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert len(shown["examples"]) == 2
    cli.main(["tasks", "--json"])
    assert set(json.loads(capsys.readouterr().out)) == set(BUILT_IN)


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_task_shows_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = ["--set", f"files={ROOT / 'LICENSE'}", "context=64", "piece=128"]
    settings = text if name == "text" else []
    cli.main(["tasks", name, "--show", "3", "--split", "test", *settings])
    lines = capsys.readouterr().out.splitlines()
    titles = [line for line in lines if not line.startswith((" ", "floors: "))]
    assert [title.split(":")[0] for title in titles] == [f"{name} test {i}" for i in range(3)]
    assert lines[-1].startswith("floors: ")


def test_word_problems(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Our examples, written as rows of the public benchmark, are read and solved."""
    changes = ["--set", "ops=[3, 3]", "mode=reverse", 'themes=["zoo"]', "--json"]
    cli.main(["tasks", "gsm_infinite", "--show", "2", "--split", "test", *changes])
    shown = json.loads(capsys.readouterr().out)
    assert list(shown["floors"]) == ["constant", "op 3"]
    lines = [
        {
            "template": "crazy_zootopia",
            "problem": " ".join(example["context"]),
            "question": example["questions"][0],
            "answer": int(example["answers"][0]),
            "op": op,
        }
        for example, op in zip(shown["examples"], (3, 4), strict=True)
    ]
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(map(json.dumps, lines)))
    cli.main(["tasks", "gsm_infinite", "--rows", str(rows), "--json"])
    read = json.loads(capsys.readouterr().out)
    assert read["rows"] == 2
    assert [text.split(":")[0] for text in read["differing"]] == ["line 2"]
    assert read["floors"]["op 4"] == 1
    cli.main(["tasks", "gsm_infinite", "--rows", str(rows)])
    assert "1 of 2 rows come out as stated" in capsys.readouterr().out


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["delta_rule_backend"] in ("chunk", "native", "fla")
    cli.main(["doctor"])
    assert "torch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["xyz"], "unknown command 'xyz'; use one of chat, generate, memory"),
        (["chta"], "unknown command 'chta'; did you mean chat?"),
        (["Train"], "unknown command 'Train'; did you mean train?"),
        (["gen"], "unknown command 'gen'; did you mean generate?"),
        (["forget", "ann"], "unknown command 'forget'; did you mean memory forget?"),
        (["train"], "RECIPE is missing; name one first, such as recipes/depo-mini.toml"),
        (["train", "--sleep.passes", "3"], "RECIPE is missing; name one first"),
        (["train", str(ROOT)], f"{ROOT}: is a folder; name a TOML file"),
        (["train", MINI.removesuffix(".toml")], f"depo-mini: no such file; did you mean {MINI}"),
        (["train", "nowhere.toml"], "nowhere.toml: no such file"),
        (["train", MINI, "--sleep.window", "7"], "sleep.window is 7, but task depo has a context"),
        (["train", RECALL, "--task.window", "8"], "sleep.window is 16, but task recall counts in"),
        (["train", TALK, "--task.window", "8"], "sleep.window is 64, but task conversation counts"),
        (
            ["train", TALK, "--sleep.loss-windows", "paper"],
            "sleep.loss_windows is paper, but every window of task conversation has",
        ),
        (["train", TEXT, "--task.files", "nothing/*.md"], "task.files names 'nothing/*.md', which"),
        (
            ["train", TEXT, "--sleep.loss-windows", "paper"],
            "sleep.loss_windows is paper, but",
        ),
        (["train", MINI, "--sleep.passes", "0"], "sleep.passes is 0; use 1"),
        (["train", MINI, "--model.vocab-size", "3"], "model.vocab_size is 3, but task depo has 16"),
        (["train", MINI, "--model.attn-heads", "5"], "model.attn_heads is 5; use a divisor"),
        (["train", MINI, "--task.nodes", "3"], "task.nodes is 3; use 6 or more"),
        (
            ["train", MINI, "--sleep.pases", "4"],
            f"unknown option --sleep.pases; did you mean --sleep.passes or --sleep.wake-passes? "
            f"see slowwave train {MINI} --help",
        ),
        (["train", MINI, "--train.steps", "x"], "--train.steps is 'x'; use a whole number; see"),
        (["train", MINI, "--train.decay-fraction", "x"], "--train.decay-fraction is 'x'; use a nu"),
        (["train", MINI, "--train.steps"], "--train.steps needs a value; see"),
        (["train", MINI, "--train.precision", "int8"], "precision is 'int8'; use auto or float32"),
        (["train", MINI, "--train.precision", "flaot32"], "is 'flaot32'; did you mean float32? s"),
        (["train", MINI, "more"], "'more' is more than it takes (a text of several words goes in"),
        (["eval"], "RUN is missing (Folder of a run: config.json and checkpoint/); see slowwave"),
        (["eval", "nowhere"], "nowhere: no such folder; name the folder of a run, such as"),
        (["eval", ""], "RUN is empty; name a file or a folder; see slowwave eval --help"),
        (["eval", "nowhere", "--passes", "0"], "--passes has 0; use 1 or more for each"),
        (["eval", "nowhere", "--passes", "1", "x"], "--passes is '1', 'x'; use numbers; see"),
        (
            ["eval", MODEL],
            f"{MODEL}: is a model to talk to, not a run; talk with it: slowwave chat",
        ),
        (["eval", RECORDED], f"{RECORDED}: is a run without its weights, checkpoint/model.safet"),
        (["eval", SHIPPED, "--set", "hops=99"], "--set hops=99 needs 109 token ids and the model"),
        (["export", MODEL, "out"], f"{MODEL}: is a model to talk to, not a run"),
        (["probe", "nowhere"], "nowhere: no such folder; name the folder of a run"),
        (["demo", "--seed", "x"], "--seed is 'x'; use a whole number; see slowwave demo"),
        (["demo", "--out", ""], "--out is empty; name a file or a folder; see"),
        (["demo", "--out", MINI], f"--out is {MINI}, a file; name a folder"),
        (["bench", "--out", MINI, "op"], f"--out is {MINI}, a file; name a folder"),
        (["bench", "serve", "--seconds", "nan"], "--seconds is nan; use more than 0"),
        (["serve", SHIPPED, "--memory-dir", MINI], f"--memory-dir is {MINI}, a file; name a folde"),
        (["serve", SHIPPED, "--limits.workers", "0"], "limits.workers is 0; use 1 or more"),
        (["probe", SHIPPED], "task is depo, and only states of rule110 evolve; name a run of"),
        (["probe", SHIPPED, "--examples", "7"], "examples is 7; use 8 or more"),
        (["probe", SHIPPED, "--examples", "x"], "--examples is 'x'; use a whole number; see slow"),
        (["plot", "nowhere"], "nowhere"),
        (["tasks", "sudoku"], "unknown task 'sudoku'; use one of rule110, depo, gsm_inf"),
        (["tasks", "recal"], "unknown task 'recal'; did you mean recall?"),
        (["tasks", "depo", "--set", "edges=3"], "edges: unknown key in DepoConfig"),
        (["tasks", "depo", "--set", "nodes"], "--set 'nodes' is not field=value; write it as st"),
        (["tasks", "depo", "--set", "=3"], "--set '=3' is not field=value; write it as steps=10"),
        (["tasks", "recall", "--set", "facts=1"], "task.updates is 2; use 0, there is no other"),
        (["tasks", "text", "--set", "files="], "task.files names '', which leads to no file"),
        (["tasks", "gsm_infinite", "--set", "ops=[1, 4]"], "task.ops is (1, 4); use 2 or more, me"),
        (["tasks", "gsm_infinite", "--set", "length=[0, 9]"], "task.length is (0, 9); let it end"),
        (["tasks", "depo", "--rows", "x.jsonl"], "--rows needs gsm_infinite, not 'depo'; name"),
        (["tasks", "gsm_infinite", "--rows", "x.jsonl"], "x.jsonl: no such file"),
        (["tasks", "depo", "--split", "dev"], "split is 'dev'; use train, validation or test"),
        (["bench", "dreams"], "unknown benchmark 'dreams'; use one of op, read,"),
    ],
)
def test_mistakes_get_one_sentence_and_exit_code_2(
    arguments: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in _refusal(arguments, capsys)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_gets_one_sentence_and_exit_code_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("slowwave.commands.doctor.run", stop)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["doctor"])
    assert exit_.value.code == 130
    assert capsys.readouterr() == ("", "slowwave: interrupted\n")


def test_unknown_recipe_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "bad.toml"
    recipe.write_text('name = "bad"\n[task]\nname = "depo"\n[sleep]\npases = 4\n')
    assert "sleep.pases: unknown key" in _refusal(["train", str(recipe)], capsys)


def test_malformed_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "bad.toml"
    recipe.write_text("name = ")
    assert "not valid TOML" in _refusal(["train", str(recipe)], capsys)


def test_a_run_is_not_served(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["serve", SHIPPED, "--memory-dir", str(tmp_path / "memories")])
    assert exit_.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"slowwave: {SHIPPED}: is a run on the task depo, and so no language m")
    assert list(tmp_path.iterdir()) == []


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--version"], ["-V"], ["version"]):
        cli.main(arguments)
        assert capsys.readouterr().out == f"slowwave {version('slowwave')}\n"
    cli.main([])
    shown = capsys.readouterr().out
    assert "slowwave --version" in shown
    for arguments in (["help"], ["-h"], ["--help"]):
        cli.main(arguments)
        assert capsys.readouterr().out == shown
    for asked, same in ((["help", "eval"], ["eval", "-h"]), (["memory", "help"], ["memory", "-h"])):
        printed: list[str] = []
        for arguments in (asked, same):
            with pytest.raises(SystemExit) as exit_:
                cli.main(arguments)
            assert exit_.value.code == 0
            printed.append(capsys.readouterr().out)
        assert printed[0] == printed[1] != ""


def test_a_narrow_terminal_breaks_no_word_of_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    path = "/a/path/that/has/no/end" * 7
    assert f"--examples is '{path}'; use" in _refusal(["eval", "x", "--examples", path], capsys)
    assert "RUN is missing (Folder of a run: config" in _refusal(["eval"], capsys)
    with pytest.raises(SystemExit):
        cli.main(["eval", "--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
