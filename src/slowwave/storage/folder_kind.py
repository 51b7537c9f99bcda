"""Folders that hold a config.json: runs, models to talk to, and what is taken for one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from slowwave.config import Config
from slowwave.storage.json_files import read_json

Wanted = Literal["run", "talker"]
Kind = Literal["run", "talker", "checkpoint", "transformers", "unknown"]
AnyConfig = TypeVar("AnyConfig", bound=Config)

NAMES: dict[Wanted, str] = {"run": "a run", "talker": "a model to talk to"}
MENDS: dict[Wanted, str] = {
    "run": "name the folder of a run, such as checkpoints/depo-mini/n4 in a checkout",
    "talker": "name the folder of a model to talk to, such as checkpoints/talk in a checkout",
}


def read_folder_config(folder: Path, wanted: Wanted, config: type[AnyConfig]) -> AnyConfig:
    """The config.json of a folder; raises ValueError that says what the folder is instead."""
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "no such folder"
        raise ValueError(f"{folder}: {found}; {MENDS[wanted]}")
    path = folder / "config.json"
    if not path.exists():
        raise ValueError(f"{folder}: has no config.json; {_name_others(folder, wanted)}")
    values = read_json(path)
    kind = _find_kind(values)
    if kind != wanted:
        raise ValueError(f"{folder}: {_describe(folder, kind, values, wanted)}")
    try:
        return config.from_dict(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def is_pretrained(folder: Path) -> bool:
    """Whether a folder holds a model of another program, in Hugging Face's form."""
    path = folder / "config.json"
    try:
        return path.exists() and _find_kind(read_json(path)) == "transformers"
    except ValueError:
        return False


def _find_kind(values: Any) -> Kind:
    """What a config.json is of, by keys that no other kind has."""
    if not isinstance(values, dict):
        return "unknown"
    keys = cast(dict[str, Any], values).keys()
    if {"task", "model"} <= keys:
        return "run"
    if {"model", "sleep"} <= keys:
        return "talker"
    if {"layers", "mlp_hidden"} <= keys:
        return "checkpoint"
    return "transformers" if keys & {"model_type", "architectures"} else "unknown"


def _name_others(folder: Path, wanted: Wanted) -> str:
    """Folders in, or around, one that has no config.json."""
    fit = [path.parent for path in sorted(folder.glob("*/config.json")) if _is_of(path, wanted)]
    if folder.name == "checkpoint" and _is_of(folder.parent / "config.json", "run"):
        fit = [folder.parent]
    return f"did you mean {' or '.join(map(str, fit[:3]))}?" if fit else MENDS[wanted]


def _is_of(path: Path, wanted: Wanted) -> bool:
    try:
        return _find_kind(read_json(path)) == wanted
    except ValueError:
        return False


def _describe(folder: Path, kind: Kind, values: Any, wanted: Wanted) -> str:
    match kind:
        case "run":
            return _describe_run(folder, values["task"])
        case "talker":
            return f"is a model to talk to, not a run; talk with it: slowwave chat {folder}"
        case "checkpoint":
            return f"is the checkpoint of a run; name the run's folder, {folder.parent}"
        case "transformers":
            return f"is a pretrained model, not a run; {MENDS[wanted]}"
        case "unknown":
            return f"has a config.json that is not of {NAMES[wanted]}; {MENDS[wanted]}"


def _describe_run(folder: Path, task: Any) -> str:
    fields = cast(dict[str, Any], task) if isinstance(task, dict) else {}
    if "tokenizer" in fields:  # as tasks of text have, whose runs can be exported
        return f"is a run, not yet a model to talk to; make one of it: slowwave export {folder} OUT"
    return (
        f"is a run on the task {fields.get('name')}, and so no language model; score it with "
        "slowwave eval, or talk to a model such as checkpoints/talk in a checkout"
    )
