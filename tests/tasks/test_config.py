"""Task configs: what they refuse, and how a file names a task."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from slowwave.config import Config
from slowwave.tasks.config import DepoConfig, Rule110Config, TaskConfig

OFFICIAL = {"grammar": "official", "nodes": 75, "questions": 10, "hops": 16}


@pytest.mark.parametrize(
    ("cls", "values", "field"),
    [
        (Rule110Config, {"width": 5}, "width"),
        (Rule110Config, {"width": 65}, "width"),
        (Rule110Config, {"num_states": 0}, "num_states"),
        (Rule110Config, {"steps": -1}, "steps"),
        (DepoConfig, {"nodes": 5}, "nodes"),
        (DepoConfig, {"min_nodes": 1}, "min_nodes"),
        (DepoConfig, {"min_nodes": 11}, "min_nodes"),
        (DepoConfig, {"hops": 0}, "hops"),
        (DepoConfig, {"questions": 0}, "questions"),
        (DepoConfig, {**OFFICIAL, "nodes": 1, "questions": 1}, "nodes"),
        (DepoConfig, {**OFFICIAL, "nodes": 2551}, "nodes"),
        (DepoConfig, {**OFFICIAL, "questions": 76}, "questions"),
        (DepoConfig, {**OFFICIAL, "hops": 500}, "hops"),
    ],
)
def test_contradictions_are_refused(cls: type[Config], values: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=rf"^task\.{field} is {values[field]}; use ") as error:
        cls(**values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "config",
    [
        Rule110Config(steps=0),
        Rule110Config(width=6),
        Rule110Config(width=64),
        DepoConfig(nodes=6),
        DepoConfig(min_nodes=10),
        DepoConfig(grammar="official", nodes=2, min_nodes=2, questions=2),
        DepoConfig(grammar="official", nodes=2550, questions=2550, hops=499),
    ],
)
def test_the_extremes_are_allowed(config: Config) -> None:
    assert type(config).from_dict(config.to_dict()) == config


@pytest.mark.parametrize("config", [Rule110Config(steps=3), DepoConfig(min_nodes=4)])
def test_the_name_picks_the_task(config: Config) -> None:
    assert TypeAdapter(TaskConfig).validate_python(config.to_dict()) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "rule111"}, "rule110"),
        ({"name": "rule110", "nodes": 10}, "nodes"),
        ({"name": "depo", "layout": "rows"}, "forked"),
    ],
)
def test_unknown_entries_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TypeAdapter(TaskConfig).validate_python(values)
