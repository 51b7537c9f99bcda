"""Conversation: chat in plain English about facts that are told, corrected and asked for."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal, get_args

from slowwave.tasks import Language, TaskConfig

MAX_REAL_PEOPLE = 24  # beyond it conversations have to invent names

Relation = Literal[
    "name", "city", "job", "age", "phone", "colour", "food", "music", "dog", "cat", "horse",
    "code", "place",
]  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversationConfig(TaskConfig):
    """Chat in plain English: note facts, take corrections, answer later or say what is unknown."""

    name: Literal["conversation"] = "conversation"
    """Selects this task."""
    has_loss_throughout: ClassVar[bool] = True
    unseeded: ClassVar[tuple[str, ...]] = ("tokenizer",)
    tokenizer: str | None = None
    """A tokenizer.json, which the tokenizers package reads; if not given, bytes are tokens."""
    window: int = 256
    """Tokens L of a window; sleep.window must be the same."""
    windows: int = 4
    """Windows of a stream; what the last turn leaves of them is padding that no pass sees."""
    relations: tuple[Relation, ...] = get_args(Relation)
    """What facts are about."""
    people: int = 6
    """People spoken of in a stream, beside the user."""
    invented: float = 0.5
    """Share of names of people, towns and pets that are invented, and so can only be copied."""
    told: float = 0.4
    """Share of turns that tell a new fact; what the shares leave over is small talk."""
    corrected: float = 0.1
    """Share of turns that tell another value of a known fact."""
    asked: float = 0.2
    """Share of turns that ask."""
    questions: int = 16
    """Questions after the stream, each on its own copy of the state."""
    question_tokens: int = 128
    """Tokens of such a question and the reply to it; longer ones are not asked."""
    untold: float = 0.2
    """Share of all questions about what was never told."""

    def __post_init__(self) -> None:
        for field in ("window", "windows", "people", "questions", "question_tokens"):
            self.require(getattr(self, field) >= 1, field, "use 1 or more")
        self.require(
            len(self.relations) > 0 and len(set(self.relations)) == len(self.relations),
            "relations",
            "name one or more, each once",
        )
        self.require(
            not set(self.relations) <= {"name"},
            "relations",
            "add others, names alone leave a split without conversations of its own",
        )
        for field in ("told", "corrected", "asked"):
            share = getattr(self, field)
            self.require(0 <= share <= 1, field, "use a share from 0 to 1")
        total = self.told + self.corrected + self.asked
        self.require(
            total <= 1 + 1e-9, "asked", f"use less, told, corrected and asked add up to {total:.3g}"
        )
        self.require(
            self.people <= MAX_REAL_PEOPLE or self.invented >= 0.1,
            "people",
            f"use at most {MAX_REAL_PEOPLE}, or 0.1 or more for task.invented",
        )
        for field in ("invented", "untold"):
            share = getattr(self, field)
            self.require(0 <= share < 1, field, "use a share from 0 to below 1")

    @property
    def own_window(self) -> int:
        return self.window

    @property
    def language(self) -> Language:
        return Language(self.tokenizer, is_chat=True)
