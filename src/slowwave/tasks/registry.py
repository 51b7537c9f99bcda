"""Makes the task that a config names."""

from __future__ import annotations

from slowwave.tasks.base import Task
from slowwave.tasks.config import Rule110Config, TaskConfig
from slowwave.tasks.depo import Depo
from slowwave.tasks.rule110 import Rule110


def make_task(config: TaskConfig) -> Task:
    """The generator for a config."""
    return Rule110(config) if isinstance(config, Rule110Config) else Depo(config)
