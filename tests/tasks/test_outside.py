"""Tasks by name: what is no task is refused in a sentence, and the table holds what it says."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from slowwave.experiment import ExperimentConfig
from slowwave.tasks import BUILT_IN, TaskConfig, find_config, find_task, make_task, read_section

TASK = """
from slowwave.tasks import TaskConfig
from slowwave.tasks.base import Task

class Bare:
    pass

class Empty(Task):
    config_class = TaskConfig

class Whole(Task):
    config_class = TaskConfig
    vocab_size = 3

    def batch(self, split, indices): ...
    def describe(self, split, index): ...
    def floors(self): ...

class Unset(Whole):
    config_class = None

class Wrong(Whole):
    config_class = dict

VALUE = 3
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "tasks_of_mine.py").write_text(TASK)
    (tmp_path / "broken_tasks.py").write_text("1 / 0")
    monkeypatch.delitem(sys.modules, "tasks_of_mine", raising=False)


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_table_holds_what_it_says(name: str) -> None:
    assert find_task(name).config_class is find_config(name)
    assert find_config(name)(name=name) == read_section({"name": name})


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("rule111", "unknown task 'rule111'; did you mean rule110? use one of rule110, depo, "),
        ("nope", "unknown task 'nope'; use one of rule110, depo, gsm_infinite, recall, "),
        ("", "unknown task ''; use one of rule110, "),
        ("no_such:Task", "no_such of task 'no_such:Task' cannot be imported (No module named "),
        ("broken_tasks:Task", "broken_tasks of task 'broken_tasks:Task' cannot be imported (divis"),
        (":Task", " of task ':Task' cannot be imported ("),
        ("tasks_of_mine:Hole", "tasks_of_mine of task 'tasks_of_mine:Hole' has no 'Hole'; name a "),
        ("tasks_of_mine:", "tasks_of_mine of task 'tasks_of_mine:' has no ''; name a class "),
        ("tasks_of_mine:VALUE", "tasks_of_mine of task 'tasks_of_mine:VALUE' has a VALUE that is "),
        ("tasks_of_mine:Bare", "tasks_of_mine of task 'tasks_of_mine:Bare' has a Bare that is no "),
        ("tasks_of_mine:Empty", "tasks_of_mine:Empty lacks batch, describe, floors; define what "),
        ("tasks_of_mine:Unset", "tasks_of_mine:Unset.config_class is None; give it a class "),
        ("tasks_of_mine:Wrong", "tasks_of_mine:Wrong.config_class is <class 'dict'>; give it a "),
    ],
)
def test_what_is_no_task_is_refused(name: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}") as caught:
        find_task(name)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=rf"^task\.name: {re.escape(sentence)}"):
        ExperimentConfig.from_dict({"name": "a", "task": {"name": name}})


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "task.name: is missing; give it"),
        ({"steps": 3}, "task.name: is missing; give it"),
        ({"name": 3}, "task.name: Input should be a valid string, got 3; correct the value"),
        ("depo", "task: is 'depo'; use a table of its fields"),
        (None, "task: is None; use a table of its fields"),
        ({"name": "tasks_of_mine:Whole", "x": 3}, "task.x: unknown key in TaskConfig; remove it"),
        ({"name": "rule110", "steps": -1}, "task.steps is -1; use 0 (recall) or more"),
    ],
)
def test_wrong_sections_are_refused_as_in_a_recipe(values: Any, sentence: str) -> None:
    for read in (
        read_section,
        lambda task: ExperimentConfig.from_dict({"name": "a", "task": task}),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
            read(values)


def test_a_config_is_of_its_own_task() -> None:
    assert make_task(TaskConfig(name="tasks_of_mine:Whole")).vocab_size == 3
    with pytest.raises(
        ValueError, match=r"^task\.name is 'depo', which takes a DepoConfig and not"
    ):
        make_task(TaskConfig(name="depo"))
