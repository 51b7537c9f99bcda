"""Draws the core of a problem, which is all of it but distractors: structure, numbers, answer.

Places and items are positions, for names to be put to. The construction follows what is known of
the public generator's output; see `gsm_infinite_graph`.
"""

from __future__ import annotations

import dataclasses

from slowwave.tasks.config import GsmInfiniteConfig
from slowwave.tasks.gsm_infinite_graph import Graph, Operands, draw_graph, totals_of
from slowwave.tasks.gsm_infinite_problem import (
    MAX_ANSWER,
    Expression,
    Kind,
    Quantity,
    Statement,
    solve,
)
from slowwave.tasks.random_stream import RandomStream

_MAX_TRIES = 100_000
_TRIES_OF_NUMBERS = 4

# Of 16 statements that nothing needs, how many have one operand, two, three and four; each time,
# one operand is a number in two of three.
_UNNEEDED_OPERANDS = (1,) * 10 + (2,) * 4 + (3, 4)


@dataclasses.dataclass(frozen=True, slots=True)
class Core:
    """needed: the statements that the answer depends on, the value given in a reverse problem
    last. unneeded: those of the other quantities. closed_places: those whose total is needed, where
    another item would change the answer."""

    needed: tuple[Statement, ...]
    unneeded: tuple[Statement, ...]
    question: Quantity
    answer: int
    closed_places: frozenset[int]

    @property
    def is_reverse(self) -> bool:
        """Whether the unknown is asked."""
        return any(statement.expression is None for statement in self.needed)


def draw_core(
    stream: RandomStream, config: GsmInfiniteConfig, operations: int, *, is_reverse: bool
) -> Core:
    """A core of exactly this many operations.

    All values that the answer needs are 0..1000, numbers of items 1 or more; the answer of a
    reverse problem is the only positive one that fits.
    """
    for _ in range(_MAX_TRIES):
        graph = draw_graph(stream, config, operations, ends_in_total=is_reverse)
        core = None if graph is None else _draw_numbers(stream, graph, operations, is_reverse)
        if core is not None:
            return core
    raise AssertionError(f"no problem of {operations} operations found; config.py must refuse it")


def draw_expression(stream: RandomStream, operands: Operands) -> Expression:
    """Number and signs of a statement: a coin for "plus" (1..4) or "times" (2..4), which also
    decides what a number without references may be, and one for the sum or difference of two."""
    number, operation = None, None
    if operands.has_number:
        if stream.is_heads():
            number, operation = 1 + stream.below(4), "plus"
        else:
            number, operation = 2 + stream.below(3), "times"
    references = operands.references
    combination = "difference" if len(references) == 2 and stream.is_heads() else "sum"
    return Expression(number, operation if references else None, references, combination)


def _draw_numbers(
    stream: RandomStream, graph: Graph, operations: int, is_reverse: bool
) -> Core | None:
    """Needed statements with numbers, and some that nothing needs; None if no try keeps bounds."""
    question = graph.order[-1]
    for _ in range(_TRIES_OF_NUMBERS):
        needed = [Statement(q, draw_expression(stream, o)) for q, o in graph.operands.items()]
        solution = solve(needed, question)
        if not all(_is_within_bounds(*entry) for entry in solution.values.items()):
            continue
        if is_reverse:
            needed, question = _reversed(needed, question, solution.answer)
            try:
                solution = solve(needed, question)
            except ValueError:
                return None  # no answer, or several, whatever the numbers
        assert solution.operations == operations
        return Core(
            tuple(needed),
            tuple(_draw_unneeded(stream, graph)),
            question,
            solution.answer,
            frozenset(quantity.place for quantity in graph.order if quantity.kind.parts),
        )
    return None


def _is_within_bounds(quantity: Quantity, value: int) -> bool:
    return (1 if quantity.kind == Kind.ITEM else 0) <= value <= MAX_ANSWER


def _reversed(
    needed: list[Statement], question: Quantity, answer: int
) -> tuple[list[Statement], Quantity]:
    """The last quantity that equals a number becomes the unknown, and what was asked is given."""
    at = max(at for at, (_, e) in enumerate(needed) if e is not None and not e.references)
    unknown = needed[at].quantity
    given = Statement(question, Expression(answer))
    return [*needed[:at], Statement(unknown, None), *needed[at + 1 :], given], unknown


def _draw_unneeded(stream: RandomStream, graph: Graph) -> list[Statement]:
    """Statements of all quantities that the answer does not need, from anything."""
    kinds = {quantity.kind for quantity in graph.stated}
    places = sorted({quantity.place for quantity in graph.stated})
    anything = [*graph.stated, *(total for place in places for total in totals_of(place, kinds))]
    statements: list[Statement] = []
    for quantity in graph.stated:
        if quantity not in graph.operands:
            others = [other for other in anything if other != quantity]
            has_number = stream.below(3) > 0
            count = stream.choose(_UNNEEDED_OPERANDS) - has_number
            references = tuple(stream.choose(others) for _ in range(count))
            expression = draw_expression(stream, Operands(has_number, references))
            statements.append(Statement(quantity, expression))
    return statements
