"""Makes the task that a config names."""

from __future__ import annotations

from slowwave.tasks.base import Task
from slowwave.tasks.config import (
    ConversationConfig,
    DepoConfig,
    GsmInfiniteConfig,
    RecallConfig,
    Rule110Config,
    TaskConfig,
    TextConfig,
)
from slowwave.tasks.conversation import Conversation
from slowwave.tasks.depo import Depo
from slowwave.tasks.gsm_infinite import GsmInfinite
from slowwave.tasks.recall import Recall
from slowwave.tasks.rule110 import Rule110
from slowwave.tasks.text import Text


def make_task(config: TaskConfig) -> Task:
    """The generator for a config."""
    match config:
        case Rule110Config():
            return Rule110(config)
        case DepoConfig():
            return Depo(config)
        case RecallConfig():
            return Recall(config)
        case ConversationConfig():
            return Conversation(config)
        case TextConfig():
            return Text(config)
        case GsmInfiniteConfig():
            return GsmInfinite(config)
