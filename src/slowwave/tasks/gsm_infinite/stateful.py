"""Word problems whose context comes first, and of which many things are asked later.

As sleep-time compute has it (arXiv 2504.13171): what can be worked out from a context before it is
asked need not be worked out again with every question. That paper let a model write the further
questions and their answers; here any quantity of a context may be asked, and its answer is exact.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

from slowwave.tasks.draws import RandomStream, check_rows, row_seeds
from slowwave.tasks.gsm_infinite.grammar import (
    name_phrases,
    question_phrases,
    statement_phrases,
    to_text,
)
from slowwave.tasks.gsm_infinite.problem import (
    MAX_ANSWER,
    NO_ITEM,
    Kind,
    Problem,
    Quantity,
    solve,
)
from slowwave.tasks.gsm_infinite.task import GsmInfinite

Guess = Literal["stated", "derived", "total", "other"]
"""How easily a question is foreseen: about a number that is stated; about what follows from a
statement; about all items of a place; about the sum of two quantities, which nothing names."""
GUESSES: tuple[Guess, ...] = ("stated", "derived", "total", "other")


class StatefulQuestion(NamedTuple):
    """A question whose answer is exact."""

    text: str
    answer: int
    guess: Guess


@dataclasses.dataclass(frozen=True, slots=True)
class StatefulProblem:
    """statements: of the context, in its order. questions: what may be asked, in random order."""

    problem: Problem
    statements: tuple[str, ...]
    questions: tuple[StatefulQuestion, ...]

    @property
    def context(self) -> str:
        """The statements as one text."""
        return " ".join(self.statements)


def draw_stateful(task: GsmInfinite, split: str, index: int, count: int) -> StatefulProblem:
    """The context of an example, and so many questions about it, as many of each `Guess` as there
    are, and as evenly.

    Raises ValueError for problems in reverse, which ask for their unknown alone, for no question at
    all, and for more questions than a context has.
    """
    problem = task.draw_problem(split, index)
    if problem.is_reverse:
        raise ValueError("task.mode makes a problem in reverse; use forward")
    if count < 1:
        raise ValueError(f"{count} questions are asked for; ask for 1 or more")
    (seed,) = row_seeds(check_rows(split, [index]), task.config, split, "stateful").tolist()
    stream = RandomStream(seed)
    pools = [_list_questions(stream, problem, guess) for guess in GUESSES]
    if count > sum(map(len, pools)):
        raise ValueError(
            f"{count} questions are asked for, and example {index} has {sum(map(len, pools))}; ask "
            "for fewer, or use problems of more operations"
        )
    chosen: list[StatefulQuestion] = []
    while len(chosen) < count:
        chosen += [pool.pop() for pool in pools if pool]
    chosen = chosen[:count]
    stream.shuffle(chosen)
    written = (to_text(statement_phrases(problem, each)) for each in problem.statements)
    return StatefulProblem(problem, tuple(written), tuple(chosen))


def _list_questions(stream: RandomStream, problem: Problem, guess: Guess) -> list[StatefulQuestion]:
    """All that may be asked and is foreseen so, shuffled."""
    asked = [(quantity,) for quantity in _list_quantities(problem, guess)]
    if guess == "other":
        derived = [*_list_quantities(problem, "derived")]
        asked = [(one, two) for i, one in enumerate(derived) for two in derived[:i]]
    made = (_make_question(problem, quantities, guess) for quantities in asked)
    found = [each for each in made if each is not None]
    stream.shuffle(found)
    return found


def _list_quantities(problem: Problem, guess: Guess) -> list[Quantity]:
    stated = {each.quantity: each.expression for each in problem.statements}
    if guess == "total":
        places = sorted({each.place for each in stated if each.kind == Kind.ITEM})
        return [Quantity(Kind.TOTAL, place, NO_ITEM) for place in places]
    return [
        quantity
        for quantity, expression in stated.items()
        if expression is not None and bool(expression.references) == (guess == "derived")
    ]


def _make_question(
    problem: Problem, quantities: tuple[Quantity, ...], guess: Guess
) -> StatefulQuestion | None:
    """None if the answer is none from 0 to MAX_ANSWER, or if it has none: what no question of the
    task needs may go round in a circle, or fall below 0."""
    try:
        solved = [solve(problem.statements, each) for each in quantities]
    except ValueError:
        return None
    answer = sum(each.answer for each in solved)
    if answer > MAX_ANSWER or any(value < 0 for each in solved for value in each.values.values()):
        return None
    return StatefulQuestion(_ask(problem, quantities), answer, guess)


def _ask(problem: Problem, quantities: tuple[Quantity, ...]) -> str:
    if len(quantities) == 1:
        return to_text(question_phrases(dataclasses.replace(problem, question=quantities[0])))
    one, two = ([*name_phrases(problem, each)] for each in quantities)
    return to_text(["what is the sum of", *one, "and", *two, "?"])
