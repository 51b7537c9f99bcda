"""docs/extending.md: each of its examples is written down where a user would, and used."""

from __future__ import annotations

import ast
import importlib
import json
import operator
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

import slowwave.sleep.config as sleep_config
from numerics import assert_close
from serving_app import Make, run, serve
from serving_app import make as make
from serving_app import talker as talker
from slowwave import cli, commands, serving, tasks
from slowwave.experiment import load_experiment, load_run
from slowwave.models import mixers
from slowwave.models.backbone import HybridLM
from slowwave.models.config import MIXERS, ModelConfig
from slowwave.serving import app as application
from slowwave.serving.access import ApiKeys
from slowwave.sleep import consolidators
from slowwave.sleep.config import KINDS, SleepConfig
from slowwave.sleep.schedule import NO_LOSS
from slowwave.sleep.stream import read_stream
from slowwave.sleep.unroll import unroll
from slowwave.state import MemoryState

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


def add_file(
    monkeypatch: pytest.MonkeyPatch, folder: Path, package: ModuleType, name: str, text: str
) -> None:
    """Lets a package have one more file, which lies in the folder."""
    (folder / f"{name}.py").write_text(text)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    importlib.invalidate_caches()


def find_row(row: str) -> Any:
    """What a row of a table holds by its name; the page shows the row."""
    found = re.search(rf'"{row}": ([^`\n]+?),`?(?=[.\n])', PAGE)
    assert found is not None
    return ast.literal_eval(found[1])


def make_model(*layers: Any) -> HybridLM:
    """A tiny model in float64."""
    config = ModelConfig(
        vocab_size=7,
        width=8,
        layers=layers,
        mlp_hidden=8,
        attn_heads=2,
        delta_heads=2,
        key_dim=4,
        value_dim=4,
    )
    return HybridLM(config, seed=0).double()


def read_whole_and_token_by_token(model: HybridLM, sleep: SleepConfig) -> MemoryState:
    """The state after 13 tokens; it and all that was put out is the same either way."""
    tokens = torch.randint(7, (2, 13), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = unroll(model, tokens, torch.full_like(tokens, NO_LOSS), sleep)
        state, hiddens = model.initial_state(2), list[Tensor]()
        for token in tokens.split(1, dim=1):
            hidden, state = read_stream(model, token, state, sleep)
            hiddens.append(hidden)
    assert_close(torch.cat(hiddens, dim=1), whole.hidden, 1e-10)
    for ours, theirs in zip(state.fast_weights, whole.state.fast_weights, strict=True):
        assert_close(ours, theirs, 1e-10)
    return state


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


def test_a_mixer_is_a_file_and_two_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = read_examples("A mixer", "python")
    add_file(monkeypatch, folder, mixers, "longhorn", text)
    monkeypatch.setitem(MIXERS, "longhorn", find_row("longhorn"))  # pyright: ignore[reportArgumentType]
    sleep = SleepConfig(window=5, passes=2)
    state = read_whole_and_token_by_token(make_model("attn", "longhorn"), sleep)
    assert int(state.num_sleeps[0]) == 2
    gated = read_whole_and_token_by_token(make_model("attn", "gdn"), sleep)
    assert not torch.allclose(state.fast_weights[0], gated.fast_weights[0])


def test_a_consolidator_is_its_settings_and_a_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, text = read_examples("A consolidator", "python")
    names = dict(vars(sleep_config))
    exec(settings, names)
    damp = names["Damp"]
    add_file(monkeypatch, folder, consolidators, "damp", text)
    monkeypatch.setitem(KINDS, "damp", damp)
    monkeypatch.setattr(sleep_config, "Consolidator", sleep_config.Consolidator | damp)

    settings = {"window": 5, "passes": 2, "consolidator": {"kind": "damp", "share": 0.25}}
    sleep = TypeAdapter(SleepConfig).validate_python(settings)
    assert sleep.consolidator == damp(share=0.25)
    with pytest.raises(ValueError, match=r"^passes is 3 with sleep.consolidator damp; use 1 "):
        sleep.require_passes(3)
    model = make_model("attn", "gdn")
    state = read_whole_and_token_by_token(model, sleep)
    tokens = torch.arange(5)[None]
    with torch.no_grad():
        _, damped = read_stream(model, tokens, model.initial_state(1), sleep)
        _, plain = read_stream(model, tokens, model.initial_state(1), SleepConfig(window=5))
    assert torch.equal(damped.fast_weights[0], 0.25 * plain.fast_weights[0])
    assert (state.window_fill, int(state.num_sleeps[0])) == (3, 2)


def test_an_eviction_rule_is_a_name_and_its_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    names, rule = read_examples("An eviction rule", "python")
    defined: dict[str, Any] = {"Literal": Literal}
    exec(names + textwrap.dedent(rule), defined)
    assert "far" in defined["Eviction"].__args__
    monkeypatch.setattr(SleepConfig, "reach", defined["reach"])
    model = make_model("attn", "attn", "gdn")
    for eviction, carried in (("sliding", 2 + 1), ("far", 5 + 1)):
        sleep = SleepConfig(window=3, eviction=eviction, sinks=1)  # pyright: ignore[reportArgumentType]
        state = read_whole_and_token_by_token(model, sleep)
        assert state.num_carried == sleep.most_carried == carried


def test_an_endpoint_is_a_file_and_a_router(
    folder: Path, monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    (text,) = read_examples("An endpoint", "python")
    add_file(monkeypatch, folder, serving, "token_count", text)
    router = importlib.import_module("slowwave.serving.token_count").router
    monkeypatch.setattr(application, "ROUTERS", (*application.ROUTERS, router))

    async def ask(text: str, keys: ApiKeys | None = None) -> tuple[int, Any]:
        async with serve(make(keys=keys)) as client:
            answer = await client.get("/v1/token_count", params={"text": text})
            return answer.status_code, answer.json()

    assert run(ask("four")) == (200, {"num_tokens": 4})
    status, body = run(ask("x" * 4097))
    assert (status, body["error"]["param"]) == (422, "text")
    assert run(ask("four", ApiKeys({bytes(32): "ann"})))[0] == 401


def test_a_command_is_a_file_and_a_row(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (text, _) = read_examples("A command", "python")
    add_file(monkeypatch, folder, commands, "recipe", text)
    monkeypatch.setitem(cli.COMMANDS, "recipe", find_row("recipe"))
    cli.main(["--help"])
    assert "slowwave recipe recipes/depo-mini.toml" in capsys.readouterr().out
    cli.main(["recipe", str(Path(__file__).parent.parent / "recipes" / "depo-mini.toml")])
    assert json.loads(capsys.readouterr().out)["task"]["name"] == "depo"
    with pytest.raises(SystemExit):
        cli.main(["recipe"])
    assert "RECIPE is missing (The TOML file); see slowwave recipe" in capsys.readouterr().err


def test_a_gate_rule_names_what_was_lost() -> None:
    (rule,) = read_examples("A gate rule", "python")
    for limit, num_reasons in ((None, 0), (0.5, 0), (0.1, 1)):
        names: dict[str, Any] = {
            "operator": operator,
            "gate": SimpleNamespace(max_worst_canary_rise=limit),
            "refused": SimpleNamespace(canary_nll=(1.0, 2.0)),
            "accepted": SimpleNamespace(canary_nll=(1.25, 1.0)),
            "reasons": list[str](),
        }
        exec(textwrap.dedent(rule), names)
        assert len(names["reasons"]) == num_reasons
