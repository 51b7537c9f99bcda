"""GSM-Infinite: read an arithmetic word problem among distractors, answer with a bare number.

Section 4.3 of the paper: a generator of our own of the kind of problem that the public one makes
(Infini-AI-Lab/gsm_infinite). `gsm_infinite_text` has the sentences, `gsm_infinite_problem` what
they mean, `gsm_infinite_grammar` the tokens. A stream is the context, padded on the left, and then
the slots that predict the digits of the answer; a question that comes last stands between the two,
padded on the left as well. Padding is made of ordinary tokens, which no mask hides.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from slowwave.tasks.base import NONE, Batch, Example, Labelled
from slowwave.tasks.config import GsmInfiniteConfig
from slowwave.tasks.gsm_infinite_draws import Draw, draw_cores, draw_problems
from slowwave.tasks.gsm_infinite_floors import Outcome, constant_floors
from slowwave.tasks.gsm_infinite_grammar import (
    ANSWER_DIGITS,
    ANSWER_SLOT,
    PADDING,
    answer_digits,
    make_grammar,
)
from slowwave.tasks.gsm_infinite_lengths import check_lengths, most_question_tokens
from slowwave.tasks.gsm_infinite_problem import Problem
from slowwave.tasks.gsm_infinite_text import question_phrases, statement_phrases, to_text
from slowwave.tasks.splits import check_indices, check_split

_FLOOR_EXAMPLES = 4096


class GsmInfinite:
    """Each answer is a whole example: all of its digits must be right. Groups are the numbers of
    operations. Raises ValueError if problems cannot have the lengths of the config."""

    group_name = "op"
    bytes_per_token: float | None = None

    def __init__(self, config: GsmInfiniteConfig) -> None:
        self.config = config
        self.grammar = make_grammar(config)
        check_lengths(config, self.grammar)
        self.vocab_size = len(self.grammar.vocabulary)
        self.context_tokens = config.context_tokens
        self._question_tokens = 0
        if config.question == "last":
            self._question_tokens = most_question_tokens(config, self.grammar)
        self.prediction_tokens = self._question_tokens + ANSWER_DIGITS
        self.group_values = tuple(range(config.ops[0], config.ops[1] + 1))
        self.group_labels = tuple(map(str, self.group_values))

    def batch(self, split: str, indices: npt.ArrayLike) -> Batch:
        """Stream (B, context_tokens + prediction_tokens), no forked questions; see `Task.batch`."""
        drawn = self._draw(split, indices)
        digits = [answer_digits(draw.core.answer) for draw, _ in drawn]
        inputs = np.array(
            [
                [*self._read(problem), ANSWER_SLOT, *row[:-1]]
                for (_, problem), row in zip(drawn, digits, strict=True)
            ]
        )
        targets = np.zeros_like(inputs)
        targets[:, -ANSWER_DIGITS:] = digits
        answers = np.full_like(inputs, NONE)
        answers[:, -ANSWER_DIGITS:] = 0
        operations = np.array([draw.operations for draw, _ in drawn])
        groups = np.broadcast_to(operations[:, None], inputs.shape)
        return Batch(Labelled.from_arrays(inputs, targets, answers, groups), None)

    def example(self, split: str, index: int) -> Example:
        """See `Task.example`."""
        stream = self.batch(split, [index]).stream
        ((draw, problem),) = self._draw(split, [index])
        return Example(
            split=split,
            index=index,
            tokens=tuple(stream.inputs[0].tolist()),
            targets=tuple(answer_digits(draw.core.answer)),
            context=tuple(to_text(statement_phrases(problem, s)) for s in problem.statements),
            questions=(to_text(question_phrases(problem)),),
            answers=(str(draw.core.answer),),
        )

    def render(self, example: Example) -> str:
        """See `Task.render`."""
        ((draw, _),) = self._draw(example.split, [example.index])
        mode = "reverse" if draw.core.is_reverse else "forward"
        title = f"gsm_infinite {example.split} {example.index}"
        question = f"  {example.questions[0]}"
        lines = [f"  {statement}" for statement in example.context]
        lines.insert(0 if self.config.question == "first" else len(lines), question)
        return "\n".join(
            [
                f"{title}: {draw.operations} operations, {mode}",
                *lines,
                f"  answer: {example.answers[0]}",
            ]
        )

    def is_correct(self, example: Example, output: Sequence[int]) -> bool:
        """See `Task.is_correct`."""
        return tuple(output) == example.targets

    def floors(self) -> dict[str, float]:
        """What constant answers score on 4,096 test examples; see `constant_floors`."""
        return dict(_test_floors(self.config))

    def _draw(self, split: str, indices: npt.ArrayLike) -> list[tuple[Draw, Problem]]:
        check_split(split)
        return draw_problems(self.config, self.grammar, split, check_indices(indices))

    def _read(self, problem: Problem) -> list[int]:
        """What is read before the answer slots."""
        statements = [
            token
            for statement in problem.statements
            for token in self.grammar.statement(problem, statement)
        ]
        question = self.grammar.question(problem)
        if self.config.question == "first":
            return _pad_left([*question, *statements], self.context_tokens)
        return [
            *_pad_left(statements, self.context_tokens),
            *_pad_left(question, self._question_tokens),
        ]


def _pad_left(tokens: list[int], length: int) -> list[int]:
    assert len(tokens) <= length, f"{len(tokens)} tokens where {length} are the most"
    return [PADDING] * (length - len(tokens)) + tokens


@functools.lru_cache
def _test_floors(config: GsmInfiniteConfig) -> dict[str, float]:
    indices = np.arange(_FLOOR_EXAMPLES, dtype=np.uint64)
    return constant_floors(
        Outcome(draw.operations, draw.core.is_reverse, draw.core.answer)
        for draw in draw_cores(config, "test", indices)
    )
