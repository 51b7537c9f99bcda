"""What a task is: batches for training, examples for people, and the scores of those who guess."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy.typing as npt

from slowwave.sleep.objective import NONE as NONE
from slowwave.sleep.objective import Batch as Batch
from slowwave.sleep.objective import Labelled as Labelled
from slowwave.tasks.config import TaskConfig


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


class Task(Protocol):
    """A generator of examples, each a pure function of (config, split, index)."""

    @property
    def config(self) -> TaskConfig:
        """What the task was made from."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        ...

    @property
    def context_tokens(self) -> int:
        """Tokens before the first prediction slot; the sleep window must divide this. 0 if
        predictions are spread over the stream."""
        ...

    @property
    def prediction_tokens(self) -> int:
        """Tokens after the context: of the rest of the stream, or of one forked question."""
        ...

    @property
    def bytes_per_token(self) -> float | None:
        """Bytes of text that a token stands for, in the mean; None if not all of it is to be
        predicted, or tokens are no text."""
        ...

    @property
    def group_name(self) -> str:
        """What the groups are, for a table's head: "hop", "state"."""
        ...

    @property
    def group_values(self) -> tuple[int, ...]:
        """Every group there is, in order."""
        ...

    @property
    def group_labels(self) -> tuple[str, ...]:
        """What each of group_values is called in records, tables and figures."""
        ...

    def batch(self, split: str, indices: npt.ArrayLike) -> Batch:
        """Examples for a model, row i from indices[i] alone; indices are 0 to 2**62.

        Raises ValueError for an unknown split or other indices.
        """
        ...

    def example(self, split: str, index: int) -> Example:
        """The example that `batch(split, [index])` holds, for people."""
        ...

    def render(self, example: Example) -> str:
        """The example as text of several lines."""
        ...

    def is_correct(self, example: Example, output: Sequence[int]) -> bool:
        """Whether `output`, one token id for each of example.targets, is right throughout."""
        ...

    def floors(self) -> dict[str, float]:
        """Scores on the test split, by name, of predictors that read nothing of the context."""
        ...


def name_range(first: int, last: int) -> str:
    """The label of a group that holds the numbers first to last."""
    return str(first) if first == last else f"{first}-{last}"
