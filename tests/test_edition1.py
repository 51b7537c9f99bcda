"""What the first edition wrote is read on: memory files, a store, exports, a recipe and a run.

fixtures/edition1/README.md says what there is, and which version made it.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from numerics import assert_close
from slowwave.experiment import (
    ExperimentConfig,
    load_experiment,
    load_run,
    look_up,
    score,
)
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker, load
from slowwave.runtime.model_folder import TalkingModel
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.stream import read_stream
from slowwave.state import MemoryState
from slowwave.storage.memory_file import load_memory, read_header, save_memory

FOLDER = Path(__file__).with_name("fixtures") / "edition1"
VALUES: dict[str, Any] = json.loads((FOLDER / "values.json").read_text("utf-8"))
FILES, STORE = VALUES["files"], VALUES["store"]


@pytest.fixture(scope="module")
def talker() -> Talker:
    return load(FOLDER / "model")


@pytest.fixture
def memories(tmp_path: Path) -> Path:
    with zipfile.ZipFile(FOLDER / "memories.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path / "memories"


def with_sleep(talker: Talker, values: dict[str, Any]) -> Talker:
    return talker._replace(sleep=SleepConfig.from_dict(values["sleep"]))


def assert_goes_on(talker: TalkingModel, state: MemoryState, values: dict[str, Any]) -> None:
    """20 more tokens, over the next sleep, end in the logits that the first edition had."""
    with torch.inference_mode():
        hidden, after = read_stream(talker.model, torch.tensor(values["more"]), state, talker.sleep)
        logits = talker.model.logits(hidden[:, -1:])[:, 0, ::16]
    assert after.counters.num_sleeps == values["num_sleeps_after"]
    assert_close(logits, torch.tensor(values["logits"]), 1e-5)


def assert_told(store: Store, name: str) -> None:
    """Ledgers and sleeps are those that were recorded."""
    values = STORE[name]
    info = store.info(name)
    counts = (info.num_entries, info.tokens_seen, info.num_sleeps, info.window_fill)
    expected = ("num_entries", "tokens_seen", "num_sleeps", "window_fill")
    assert counts == tuple(values[key] for key in expected)
    assert info.sleep == SleepConfig.from_dict(values["sleep"])
    gate = store.gate(name)
    assert (None if gate is None else gate.to_dict()) == values["gate"]
    for point, ledger in values["ledgers"].items():
        found = [
            [e.kind, e.source, e.role, e.text, e.said, e.finish, list(e.tokens), e.passes]
            for e in store.entries(point)
        ]
        assert found == ledger
    for slept, sleep in zip(store.sleeps(name), values["sleeps"], strict=True):
        assert (slept.start, slept.stop) == (sleep["start"], sleep["stop"])
        report = json.loads(json.dumps(dataclasses.asdict(slept.report)))
        later = {
            name: report.pop(name) for name in ("consolidator", "entries", "replayed", "dream")
        }
        assert later == {"consolidator": "passes", "entries": 0, "replayed": 0, "dream": None}
        assert report == {key: sleep[key] for key in sleep if key not in ("start", "stop")}


@pytest.mark.parametrize("name", FILES)
def test_memory_files(name: str, talker: Talker, tmp_path: Path) -> None:
    path, values = FOLDER / f"{name}.swmem", FILES[name]
    header = read_header(path)
    talker = with_sleep(talker, values)
    assert header.sleep == talker.sleep
    options = {"tokenizer": "bytes", "sleep": talker.sleep}
    state = load_memory(path, talker.model, **options, batch_size=values["batch_size"])
    assert state.counters == tuple(
        values[key] for key in ("tokens_seen", "num_sleeps", "window_fill")
    )
    assert state.num_carried == values["num_carried"]
    assert state.window_tokens.tolist() == values["window_tokens"]
    norms = {key: float(tensor.double().norm()) for key, tensor in state.tensors().items()}
    assert norms == pytest.approx(values["norms"], rel=1e-12)
    assert_goes_on(talker, state, values)
    save_memory(tmp_path / "again", state, talker.model, **options)
    again = load_memory(
        tmp_path / "again", talker.model, **options, batch_size=values["batch_size"]
    )
    for key, tensor in again.tensors().items():
        assert torch.equal(tensor, state.tensors()[key])


@pytest.mark.parametrize("name", STORE)
def test_sessions_of_a_store(name: str, talker: Talker, memories: Path) -> None:
    with Store(memories) as store:
        assert store.names() == sorted(STORE)
        assert_told(store, name)
        with store.open(name, with_sleep(talker, STORE[name])) as session:
            assert_goes_on(session.talker, session.state, STORE[name])
            session.generate("And now?", max_new_tokens=2)
        assert store.info(name).tokens_seen > STORE[name]["tokens_seen"]


@pytest.mark.parametrize("name", STORE)
def test_ledgers_lead_to_their_states(name: str, talker: Talker, memories: Path) -> None:
    for file in (memories / "states").iterdir():
        file.unlink()
    talker = with_sleep(talker, STORE[name])
    with Store(memories) as store:
        assert name in store.rebuild(name, talker)
        assert_told(store, name)
        with store.open(name, talker) as session:
            assert_goes_on(session.talker, session.state, STORE[name])


@pytest.mark.parametrize("name", ["ann", "stern", "dan"])
def test_exports(name: str, talker: Talker, tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        assert store.import_session(FOLDER / f"{name}.memory").name == name
        assert_told(store, name)
        with store.open(name, with_sleep(talker, STORE[name])) as session:
            assert_goes_on(session.talker, session.state, STORE[name])


def test_a_recipe_and_its_run() -> None:
    recipe = load_experiment(FOLDER / "recipe.toml")
    config, model, task = load_run(FOLDER / "run")
    assert config == recipe
    assert config == ExperimentConfig.from_dict(config.to_dict())
    records = score(model, task, config, passes=(1, 3), examples=8)
    for record, expected in zip(records, VALUES["run"]["test"], strict=True):
        found = record.to_dict()
        assert (found["passes"], found["flops"]) == (expected["passes"], expected["flops"])
        assert found["overall"] == pytest.approx(expected["overall"], rel=1e-5)


def test_a_finished_run_is_known(tmp_path: Path) -> None:
    shutil.copytree(FOLDER / "run", tmp_path / "run")
    standing = look_up(load_experiment(FOLDER / "recipe.toml"), tmp_path / "run")
    assert standing.sentence.endswith("finished already, 6 steps")
