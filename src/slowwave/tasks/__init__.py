"""Tasks: a stream to read and sleep over, then questions about it; and where each one is found.

A task goes by a name, which picks it in a recipe. Each of those here is a package: its `__init__`
holds the config, which loads no torch, and its `task` the task itself. A task from elsewhere is
named as `module:Class`, or has a name in the entry points of an installed package.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

from pydantic import PlainSerializer, PlainValidator

from slowwave.config import Config, validate
from slowwave.wording import guess

if TYPE_CHECKING:
    from slowwave.tasks.base import Task

BUILT_IN = {
    "rule110": ("Rule110Config", "Rule110"),
    "depo": ("DepoConfig", "Depo"),
    "gsm_infinite": ("GsmInfiniteConfig", "GsmInfinite"),
    "recall": ("RecallConfig", "Recall"),
    "conversation": ("ConversationConfig", "Conversation"),
    "text": ("TextConfig", "Text"),
}
"""Config and task of each package here, by its name."""

ENTRY_POINTS = "slowwave.tasks"


class Language(NamedTuple):
    """What the tokens of a text are. tokenizer: a tokenizer.json; None if they are bytes. is_chat:
    whether the text is the lines of a user and the replies to them, in the default `ChatFormat`."""

    tokenizer: str | None
    is_chat: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig(Config):
    """Base of the configs of tasks: which task, and how hard it is."""

    name: str
    """Selects the task."""

    unseeded: ClassVar[tuple[str, ...]] = ()
    """Fields that seed nothing, as they say how what is drawn is laid out in tokens."""
    has_loss_throughout: ClassVar[bool] = False
    """Whether every window has loss, so that none is slept on before the first loss."""

    @property
    def own_window(self) -> int | None:
        """Tokens of a window, if the task counts in windows: sleep.window must be the same."""
        return None

    @property
    def language(self) -> Language | None:
        """What a run on the task can be exported with, if it is a model of text."""
        return None

    def require(self, condition: bool, field: str, mend: str) -> None:
        """Raises ValueError, which names the field and its value, unless the condition holds."""
        if not condition:
            raise ValueError(f"task.{field} is {getattr(self, field)!r}; {mend}")


def list_names() -> list[str]:
    """The tasks that have a name: those of this package, then those of other packages."""
    return [*dict.fromkeys([*BUILT_IN, *entry_points(group=ENTRY_POINTS).names])]


def find_config(name: str) -> type[TaskConfig]:
    """The class of the config of a task; loads no torch for a task of this package.

    Raises ValueError, in one sentence, if there is no such task.
    """
    if name not in BUILT_IN:
        return find_task(name).config_class
    config, _ = BUILT_IN[name]
    return getattr(importlib.import_module(f"{__name__}.{name}"), config)


def find_task(name: str) -> type[Task[Any]]:
    """The class of a task; raises ValueError, in one sentence, if there is none of the name."""
    if name in BUILT_IN:
        _, task = BUILT_IN[name]
        return getattr(importlib.import_module(f"{__name__}.{name}.task"), task)
    from slowwave.tasks.base import Task

    place = name if ":" in name else _find_entry(name)
    module, _, attribute = place.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # whatever the module does when it is imported
        raise ValueError(
            f"{module} of task {name!r} cannot be imported ({error}); mend it, install it, or put "
            "its folder on PYTHONPATH"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Task)):
        what = f"has no {attribute!r}" if found is None else f"has a {attribute} that is no task"
        raise ValueError(
            f"{module} of task {name!r} {what}; name a class derived from slowwave.tasks.base.Task"
        )
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise ValueError(f"{place} lacks {missing}; define what every task has")
    config = getattr(found, "config_class", None)
    if not (isinstance(config, type) and issubclass(config, TaskConfig)):
        raise ValueError(
            f"{place}.config_class is {config!r}; give it a class derived from "
            "slowwave.tasks.TaskConfig"
        )
    return found


def make_task(config: TaskConfig) -> Task[Any]:
    """The task that a config is of; raises ValueError if the task of its name takes another."""
    task = find_task(config.name)
    if not isinstance(config, task.config_class):
        raise ValueError(
            f"task.name is {config.name!r}, which takes a {task.config_class.__name__} and not a "
            f"{type(config).__name__}; name the task in the recipe"
        )
    return task(config)


def read_section(values: Any) -> TaskConfig:
    """The `task` section of a recipe: plain values, as the config of the task that they name.

    Raises ValueError, in one sentence, on any wrong entry.
    """
    if isinstance(values, TaskConfig):
        return values
    if not isinstance(values, dict) or not isinstance(values.get("name"), str):
        return validate(TaskConfig, values, at="task")  # which raises, and says what is wrong
    try:
        config = find_config(values["name"])
    except ValueError as error:
        raise ValueError(f"task.name: {error}") from error
    return validate(config, values, at="task")


TaskSection = Annotated[TaskConfig, PlainValidator(read_section), PlainSerializer(Config.to_dict)]
"""A config of any task, as a field of another config."""


def _find_entry(name: str) -> str:
    """The `module:Class` of a task that an installed package registers."""
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name == name:
            return f"{entry.module}:{entry.attr}"
    known = list_names()
    close = guess(name, known)
    raise ValueError(
        f"unknown task {name!r}; {close}{close and ' '}use one of {', '.join(known)}, or "
        "module:Class for a task of your own"
    )
