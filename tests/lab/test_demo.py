"""The demo tells what the models do, keeps it, and says so when it cannot."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from slowwave.evaluation.evaluate import evaluate
from slowwave.experiment import ExperimentConfig, build, load_run
from slowwave.lab.demo import PASSES, run_demo
from slowwave.models.config import ModelConfig
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.objective import plan_batch, predict
from slowwave.storage.checkpoint import save_model
from slowwave.storage.json_files import read_json, write_json
from slowwave.tasks.depo import DepoConfig
from slowwave.tasks.rule110 import Rule110Config

GRAPHS = 3
SEED = 5


def _config(passes: int) -> ExperimentConfig:
    return ExperimentConfig(
        name="tiny",
        task=DepoConfig(nodes=6, hops=3, questions=20),
        model=ModelConfig(
            width=16, mlp_hidden=32, attn_heads=2, delta_heads=2, key_dim=8, value_dim=8
        ),
        sleep=SleepConfig(window=12, passes=passes),
    )


def _write(folder: Path, config: ExperimentConfig) -> None:
    model, _ = build(config)
    save_model(folder / "checkpoint", model)
    write_json(folder / "config.json", config.to_dict())


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkpoints")
    for passes in PASSES:
        config = _config(passes)
        # Models of their own, so that a mix-up of two shows.
        train = dataclasses.replace(config.train, seed=passes)
        _write(root / f"n{passes}", dataclasses.replace(config, train=train))
    return root


def _run_json(checkpoints: Path, out: Path, seed: int | None) -> dict[str, Any]:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        run_demo(checkpoints, out=out, seed=seed, graphs=GRAPHS, as_json=True)
    return json.loads(printed.getvalue())


@pytest.fixture(scope="module")
def told(
    checkpoints: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    """What --json printed about graph SEED, and the folder it wrote."""
    out = tmp_path_factory.mktemp("out") / "new" / "demo"
    return _run_json(checkpoints, out, SEED), out


def test_json_is_one_document_and_what_was_written(told: tuple[dict[str, Any], Path]) -> None:
    result, out = told
    assert read_json(out / "demo.json") == result
    assert result["files"] == {
        name: str(out / name) for name in ("demo.json", "stream.json", "demo.png")
    }
    assert (out / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "demo.png").stat().st_size > 20_000
    stream = read_json(out / "stream.json")
    assert stream["sleep"]["passes"] == PASSES[-1]
    assert [event["kind"] for event in stream["events"]] == ["read"] * 12 + ["sleep"]
    assert result["sleeps"] == [stream["events"][-1]]
    assert result["sleeps"][0]["cache_nbytes_after"] == 0


def test_answers_are_those_of_the_models(
    checkpoints: Path, told: tuple[dict[str, Any], Path]
) -> None:
    result, _ = told
    assert len(result["questions"]) == 12
    hops = [int(asked["question"].split()[0]) for asked in result["questions"]]
    assert hops == sorted(hops)
    assert len({asked["question"] for asked in result["questions"]}) == 12
    assert set(hops) == {1, 2, 3}
    expected: dict[str, dict[str, str]] = {}
    truth: dict[str, str] = {}
    for passes in (PASSES[0], PASSES[-1]):
        config, model, task = load_run(checkpoints / f"n{passes}")
        with torch.no_grad():
            batch = task.batch("test", [SEED])
            scored = predict(model, batch, plan_batch(batch, config.sleep))
        words = task.example("test", SEED)
        said = [str(token) for token in scored.logits.argmax(-1).tolist()]
        expected[str(passes)] = dict(zip(words.questions, said, strict=True))
        truth = dict(zip(words.questions, words.answers, strict=True))
    assert expected["1"] != expected["4"]
    for asked in result["questions"]:
        assert asked["truth"] == truth[asked["question"]]
        assert asked["answers"] == {n: said[asked["question"]] for n, said in expected.items()}


def test_scores_are_those_of_each_model_slept_as_trained(
    checkpoints: Path, told: tuple[dict[str, Any], Path]
) -> None:
    result, _ = told
    for passes, record in zip(PASSES, result["scores"], strict=True):
        config, model, task = load_run(checkpoints / f"n{passes}")
        (expected,) = evaluate(model, task, sleep=config.sleep, split="test", examples=GRAPHS)
        assert record == json.loads(json.dumps(expected.to_dict()))
        assert record["passes"] == passes
    assert result["floors"] == {"chance": pytest.approx(0.2)}


def test_without_a_seed_the_graph_is_fresh_and_its_index_repeats_it(
    checkpoints: Path, tmp_path: Path
) -> None:
    fresh, other = (_run_json(checkpoints, tmp_path, None) for _ in range(2))
    assert fresh["index"] != other["index"]
    again = _run_json(checkpoints, tmp_path, fresh["index"])
    assert again["context"] == fresh["context"]
    assert again["questions"] == fresh["questions"]


def test_people_are_told_the_story(
    checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_demo(checkpoints, out=tmp_path, seed=SEED, graphs=GRAPHS, as_json=False)
    printed = capsys.readouterr()
    text = re.sub(r"\s+", " ", printed.out)
    assert printed.err == ""
    assert "test graph 5 (--seed 5 shows it again)" in text
    sleep = read_json(tmp_path / "demo.json")["sleeps"][0]
    before = f"{sleep['cache_nbytes_before'] / 1e3:.1f} kB"
    assert f"the cache is dropped: {before} -> 0.0 kB" in text
    assert text.count("change ") == len(PASSES) * 2  # two recurrent layers
    for expected in ("12/12", "pass 4", "N = 1 N = 4", "N = 3", "floor: chance", "demo.png"):
        assert expected in text
    assert text.count("\u2713") + text.count("\u2717") == 24
    (ring,) = re.findall(r"for you to check: (\d(?: -> \d)+)", text)
    arrows = {f"{a}>{b}" for a, b in itertools.pairwise(ring.split(" -> "))}
    assert arrows == set(read_json(tmp_path / "demo.json")["context"])


def test_without_matplotlib_all_but_the_figure_is_there(
    checkpoints: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    run_demo(checkpoints, out=tmp_path, seed=SEED, graphs=GRAPHS, as_json=True)
    printed = capsys.readouterr()
    assert "install it in a checkout of slowwave: make demo, or pip install -e" in printed.err
    assert set(json.loads(printed.out)["files"]) == {"demo.json", "stream.json"}
    assert not (tmp_path / "demo.png").exists()


# Refusals.


def _copy(checkpoints: Path, out: Path) -> Path:
    for passes in PASSES:
        config, _, _ = load_run(checkpoints / f"n{passes}")
        _write(out / f"n{passes}", config)
    return out


def _refuse(checkpoints: Path, out: Path, match: str, *, seed: int = 0, graphs: int = 1) -> None:
    with pytest.raises(ValueError, match=match):
        run_demo(checkpoints, out=out, seed=seed, graphs=graphs, as_json=False)
    assert not out.exists()


def test_missing_models(checkpoints: Path, tmp_path: Path) -> None:
    _write(tmp_path / "n1", _config(1))
    _refuse(tmp_path, tmp_path / "out", "no trained model n2, n3, n4; run the demo from a checkout")
    (tmp_path / "n2").mkdir()
    (tmp_path / "n3").mkdir()
    (tmp_path / "n4").mkdir()
    _refuse(tmp_path, tmp_path / "out", r"n2: has no config\.json; name")


def test_a_model_of_another_n(checkpoints: Path, tmp_path: Path) -> None:
    copy = _copy(checkpoints, tmp_path / "copy")
    _write(copy / "n3", _config(2))
    _refuse(copy, tmp_path / "out", r"n3: sleep\.passes is 2; put a model trained with 3 there")


@pytest.mark.parametrize(
    "task",
    [
        DepoConfig(nodes=6, hops=2, questions=20),
        DepoConfig(nodes=6, hops=3, questions=20, layout="row"),
        Rule110Config(width=6, num_states=2),
    ],
)
def test_a_model_of_another_task(
    checkpoints: Path, tmp_path: Path, task: DepoConfig | Rule110Config
) -> None:
    copy = _copy(checkpoints, tmp_path / "copy")
    _write(copy / "n2", dataclasses.replace(_config(2), task=task))
    _refuse(copy, tmp_path / "out", "n2: task is .*; use models of one depo task")


def test_models_of_a_task_that_cannot_be_told(tmp_path: Path) -> None:
    for passes in PASSES:
        task = Rule110Config(width=6, num_states=2)
        _write(tmp_path / f"n{passes}", dataclasses.replace(_config(passes), task=task))
    _refuse(tmp_path, tmp_path / "out", "n1: task is .*; use models of one depo task")


def test_impossible_numbers(checkpoints: Path, tmp_path: Path) -> None:
    _refuse(checkpoints, tmp_path / "out", r"--seed is -1; use 0 to 2\*\*62", seed=-1)
    _refuse(checkpoints, tmp_path / "out", "--graphs is 0; use 1 or more", graphs=0)
