"""What a task is: batches for training, examples for people, and the scores of those who guess."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterable, Sequence
from typing import ClassVar, Generic, TypeVar

import numpy.typing as npt
import torch

from slowwave.sleep.objective import NONE, Batch
from slowwave.tasks import TaskConfig

Lines = Iterable[str]
AnyConfig = TypeVar("AnyConfig", bound=TaskConfig)


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One example for people.

    tokens: the inputs of the stream. targets: all tokens to predict, in order, those of forked
    questions after those of the stream. context: what is read, in words. questions and answers:
    what is asked, in words, one entry each per question.
    """

    split: str
    index: int
    tokens: tuple[int, ...]
    targets: tuple[int, ...]
    context: tuple[str, ...]
    questions: tuple[str, ...]
    answers: tuple[str, ...]


class Task(abc.ABC, Generic[AnyConfig]):
    """A generator of examples, each a pure function of (config, split, index).

    `__init__` of a subclass keeps the config and sets the rest; examples are made by the methods.
    """

    config_class: ClassVar[type[TaskConfig]]
    """What a recipe is read as."""
    vocab_size: int
    """Number of token ids."""
    context_tokens: int
    """Tokens before the first prediction slot; the sleep window must divide this. 0 if predictions
    are spread over the stream."""
    prediction_tokens: int
    """Tokens after the context: of the rest of the stream, or of one forked question."""
    bytes_per_token: float | None = None
    """Bytes of text that a token stands for, in the mean; None if not all of it is to be
    predicted, or tokens are no text."""
    group_name: str
    """What the groups are, for a table's head: "hop", "state"."""
    groups: dict[int, str]
    """Every group there is, in order, and what it is called in records, tables and figures."""

    def __init__(self, config: AnyConfig) -> None:
        self.config = config

    @property
    def group_labels(self) -> tuple[str, ...]:
        """What the groups are called, in order."""
        return tuple(self.groups.values())

    @abc.abstractmethod
    def batch(self, split: str, indices: npt.ArrayLike) -> Batch:
        """Examples for a model, row i from indices[i] alone; indices are 0 to 2**62.

        Raises ValueError for an unknown split or other indices.
        """

    @abc.abstractmethod
    def describe(self, split: str, index: int) -> tuple[Lines, Lines, Lines]:
        """In words, what `batch(split, [index])` reads, what it asks, and an answer each."""

    @abc.abstractmethod
    def floors(self) -> dict[str, float]:
        """Scores on the test split, by name, of predictors that read nothing of the context."""

    def example(self, split: str, index: int) -> Example:
        """The example that `batch(split, [index])` holds, for people."""
        batch = self.batch(split, [index])
        parts = [batch.stream] if batch.questions is None else [batch.stream, batch.questions]
        targets = torch.cat([part.targets[part.answers != NONE] for part in parts])
        tokens: list[int] = batch.stream.inputs[0].tolist()
        words = map(tuple, self.describe(split, index))
        return Example(split, index, tuple(tokens), tuple(targets.tolist()), *words)

    def render(self, example: Example) -> str:
        """The example as text of several lines."""
        asked = zip(example.questions, example.answers, strict=True)
        lines = [*self.label(example.context), *map(": ".join, asked)]
        title = f"{self.config.name} {example.split} {example.index}"
        return "\n  ".join([title, *lines])

    def label(self, context: Sequence[str]) -> Lines:
        """The lines of an example's context, with what a reader has to know of each."""
        return context


def name_doublings(last: int) -> list[str]:
    """Labels of groups that hold the numbers 1 to `last`, by bit length: "1", "2-3", "4-7"..."""
    bounds = [(2**bit, min(2 ** (bit + 1) - 1, last)) for bit in range(last.bit_length())]
    return [str(low) if low == high else f"{low}-{high}" for low, high in bounds]
