"""What an answer costs, by how many questions are asked of one context.

The context is read once, and slept on; every question is then read on a copy of what that left,
with all of its wake passes. So sleep pays once a context, and looping at wake with every question.
"""

from __future__ import annotations

import dataclasses

from slowwave.models.config import ModelConfig
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.objective import Plan
from slowwave.sleep.schedule import NO_LOSS, cut_stream
from slowwave.tasks.base import Task


@dataclasses.dataclass(frozen=True, slots=True)
class QuestionCost:
    """FLOPs of inference, as `slowwave.models.flops` counts them."""

    context: int
    """Reading a context and sleeping on it, once."""
    question: int
    """Reading a question and its answer."""

    def each(self, questions: int) -> float:
        """FLOPs an answered question, if as many are asked of one context."""
        return self.context / questions + self.question

    def cheaper_from(self, other: QuestionCost) -> int | None:
        """The fewest questions of one context from which on this costs less than `other`.

        None if it does not, however many are asked.
        """
        saved = other.question - self.question
        if saved > 0:
            return max(1, (self.context - other.context) // saved + 1)
        return 1 if saved == 0 and self.context < other.context else None


def question_cost(task: Task, model: ModelConfig, sleep: SleepConfig) -> QuestionCost:
    """What a model costs that answers questions of a task, in a batch of one.

    Counted as they are scored: question and answer are read in one call. What a task asks in a row
    is one question. The vocabulary is the task's, whatever the model's config says. Raises
    ValueError if the task has no context.
    """
    if task.context_tokens == 0:
        raise ValueError(
            f"task {task.config.name} has no context that questions could share; choose another"
        )
    batch = task.batch("test", [0])
    asked = batch.stream.targets if batch.questions is None else batch.questions.targets[:, :1]
    num_scored = int((asked != NO_LOSS).sum())
    sizes = dataclasses.replace(model, vocab_size=task.vocab_size)
    plan = Plan(sleep, cut_stream(task.context_tokens, sleep, keep_hidden=False))
    context = plan.flops(sizes)
    asked_once = dataclasses.replace(
        plan, num_scored=num_scored, forks=1, fork_tokens=task.prediction_tokens
    )
    return QuestionCost(context, asked_once.flops(sizes) - context)
