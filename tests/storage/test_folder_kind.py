"""A folder that is not what was asked for is called by what it is."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from slowwave.experiment import ExperimentConfig, export_run, load_run
from slowwave.memory.talker import load
from slowwave.models.config import ModelConfig
from slowwave.runtime.model_folder import TalkerConfig
from slowwave.sleep.config import SleepConfig
from slowwave.storage.checkpoint import save_model
from slowwave.tasks import BUILT_IN, TaskConfig, find_config
from slowwave.tasks.conversation import ConversationConfig
from slowwave.tasks.depo import DepoConfig

ROOT = Path(__file__).parents[2]
TALKER = TalkerConfig(model=ModelConfig(vocab_size=9), sleep=SleepConfig())


def write(folder: Path, config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def run_of(task: TaskConfig) -> dict[str, Any]:
    return ExperimentConfig(name="tiny", task=task).to_dict()


def refusals(folder: Path) -> list[str]:
    """What one is told who takes a folder for a model to talk to, and for a run."""
    said: list[str] = []
    for call in (load, load_run):
        with pytest.raises(ValueError) as caught:
            call(folder)
        said.append(str(caught.value))
    return said


def test_runs(tmp_path: Path) -> None:
    """Of a run on text it says how it becomes a model; another is no language model."""
    run = write(tmp_path / "run", run_of(ConversationConfig()))
    talk, score = refusals(run)
    assert talk == (
        f"{run}: is a run, not yet a model to talk to; make one of it: slowwave export {run} OUT"
    )
    assert score.startswith(f"{run}: is a run without its weights, checkpoint/model.safetensors")
    write(run, run_of(DepoConfig()))
    assert refusals(run)[0].startswith(f"{run}: is a run on the task depo, and so no language mod")


def test_models_to_talk_to(tmp_path: Path) -> None:
    model = write(tmp_path / "model", TALKER.to_dict())
    assert refusals(model)[1] == (
        f"{model}: is a model to talk to, not a run; talk with it: slowwave chat {model}"
    )
    with pytest.raises(ValueError, match="is a model to talk to, not a run"):
        export_run(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_neither(tmp_path: Path) -> None:
    mends = (
        "name the folder of a model to talk to, such as checkpoints/talk in a checkout",
        "name the folder of a run, such as checkpoints/depo-mini/n4 in a checkout",
    )

    def assert_said(folder: Path, what: str) -> None:
        for said, mend in zip(refusals(folder), mends, strict=True):
            assert said == f"{folder}: {what}; {mend}"

    assert_said(tmp_path / "nowhere", "no such folder")
    assert_said(ROOT / "LICENSE", "is a file")
    (tmp_path / "empty").mkdir()
    assert_said(tmp_path / "empty", "has no config.json")
    foreign = write(tmp_path / "hf", {"model_type": "qwen3", "architectures": ["Qwen3"]})
    talk, score = refusals(foreign)
    assert talk == f"{foreign / 'config.json'}: hidden_size is missing; restore the file"
    assert score == f"{foreign}: is a pretrained model, not a run; {mends[1]}"
    for values in ({}, [1], None, {"a": 1}):
        talk, score = refusals(write(tmp_path / "odd", values))
        assert "has a config.json that is not of a model to talk to;" in talk
        assert "has a config.json that is not of a run;" in score


def test_the_folder_beside_is_named(tmp_path: Path) -> None:
    model = write(tmp_path / "models" / "b", TALKER.to_dict())
    write(tmp_path / "models" / "a", [1])
    run = write(tmp_path / "models" / "run", run_of(DepoConfig()))
    (tmp_path / "models" / "c").mkdir()
    (tmp_path / "models" / "c" / "config.json").write_text("{")
    talk, score = refusals(tmp_path / "models")
    assert talk.endswith(f"has no config.json; did you mean {model}?")
    assert score.endswith(f"has no config.json; did you mean {run}?")


def test_a_checkpoint_leads_to_its_run(tmp_path: Path) -> None:
    run = write(tmp_path / "run", run_of(DepoConfig()))
    (run / "checkpoint").mkdir()
    assert refusals(run / "checkpoint")[1].endswith(f"has no config.json; did you mean {run}?")
    from slowwave.models.backbone import HybridLM
    from tiny_models import TWO_LAYERS

    save_model(run / "checkpoint", HybridLM(TWO_LAYERS))
    for said in refusals(run / "checkpoint"):
        assert said.endswith(f"is the checkpoint of a run; name the run's folder, {run}")


def test_a_wrong_entry_names_the_file_and_dumps_nothing(tmp_path: Path) -> None:
    values = TALKER.to_dict()
    del values["sleep"]["passes"]
    values["sleep"]["pases"] = 3
    model = write(tmp_path / "model", values)
    with pytest.raises(ValueError) as caught:
        load(model)
    assert str(caught.value) == (
        f"{model}/config.json: sleep.pases: unknown key in TalkerConfig; did you mean passes?"
    )


def test_runs_on_text_are_those_that_can_be_exported() -> None:
    """By the field that an export needs."""
    for config in (find_config(name)(name=name) for name in BUILT_IN):
        has_tokenizer = "tokenizer" in {field.name for field in dataclasses.fields(config)}
        assert has_tokenizer == (config.language is not None)
