"""Test-time training from a recipe to a session: trained, switched off, exported, talked to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import slowwave
from slowwave import cli

ROOT = Path(__file__).parents[2]
TINY = [
    *("--model.width", "12", "--model.mlp-hidden", "16", "--model.prime-hidden", "8"),
    *("--task.files", "docs/*.md", "--task.context", "192", "--task.piece", "512"),
    *("--train.steps", "2", "--train.batch-size", "2", "--train.eval-examples", "2"),
    *("--train.test-examples", "2", "--train.no-compile", "--train.threads", "1"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ttt") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        cli.main(["train", "recipes/ttt-mini.toml", *TINY, "--out", str(out)])
    return out


@pytest.fixture(autouse=True)
def in_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def evaluate(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    cli.main(["eval", *map(str, arguments), "--examples", "2", "--json"])
    return json.loads(capsys.readouterr().out)


def score(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    return evaluate(capsys, *arguments)["test"]


def test_steps_are_switched_off_by_one_pass_or_by_the_consolidator(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    off, on = score(capsys, run, "--passes", "1", "2")
    evict = ["--set", "sleep.consolidator=evict", "sleep.passes=1"]
    switched_off = evaluate(capsys, run, *evict)
    assert (switched_off["test"], switched_off["trained_passes"]) == ([off], 2)
    first, *later = on["groups"]
    assert off["groups"][first] == on["groups"][first]
    assert all(off["groups"][group]["loss"] != on["groups"][group]["loss"] for group in later)
    (slower,) = score(capsys, run, "--set", "sleep.consolidator.learning_rate=0.5")
    assert slower["overall"]["loss"] != on["overall"]["loss"]


def test_windows_other_than_the_tasks_are_refused(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["eval", str(run), "--set", "sleep.window=32"])
    assert "sleep.window is 32, but task text counts in windows" in capsys.readouterr().err


def test_a_recipe_without_prime_mlps_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "recipes/ttt-mini.toml", *TINY, "--model.prime-blocks", "0"])
    assert "model.prime_blocks is 0; use a model that was" in capsys.readouterr().err


def test_a_session_is_saved_and_restored_exactly(run: Path, tmp_path: Path) -> None:
    cli.main(["export", str(run), str(tmp_path / "model")])
    talker = slowwave.load(tmp_path / "model")
    session = talker.session()
    session.read("Ann lives in Lima. " * 12)
    assert session.status().num_sleeps == 3
    session.save(tmp_path / "ann")
    again = talker.session(tmp_path / "ann")
    replies = [each.generate("Who?", max_new_tokens=70) for each in (session, again)]
    assert replies[0] == replies[1]
    assert any(bool(prime.up.any()) for prime in again.state.primes)
