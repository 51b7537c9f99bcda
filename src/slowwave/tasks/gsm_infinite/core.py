"""Draws the core of a problem, which is all of it but distractors: structure, numbers, answer.

The quantities that an answer needs come first, in an order that derives them, then the numbers.
Places and items are positions, for names to be put to. The construction follows what is known of
the public generator's output (op counts, numbers of quantities and totals), not its code.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable

from slowwave.tasks.draws import RandomStream
from slowwave.tasks.gsm_infinite import GsmInfiniteConfig
from slowwave.tasks.gsm_infinite.problem import (
    MAX_ANSWER,
    NO_ITEM,
    Expression,
    Kind,
    Quantity,
    Statement,
    solve,
)

MAX_OPERANDS = 4

_MAX_TOTALS = 2
_MAX_TRIES = 100_000
_TRIES_OF_NUMBERS = 4

# Of 16 statements that nothing needs, how many have one operand, two, three and four; each time,
# one operand is a number in two of three.
_UNNEEDED_OPERANDS = (1,) * 10 + (2,) * 4 + (3, 4)


@dataclasses.dataclass(frozen=True, slots=True)
class Operands:
    """What a statement derives its quantity from: a number or none, and earlier quantities."""

    has_number: bool
    references: tuple[Quantity, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Graph:
    """stated: every quantity that has a statement. operands: of the stated ones that are needed.
    order: all needed quantities, totals included, each after what it depends on; the last one
    depends on all others."""

    stated: tuple[Quantity, ...]
    operands: dict[Quantity, Operands]
    order: tuple[Quantity, ...]


def stated_kinds(config: GsmInfiniteConfig) -> tuple[Kind, ...]:
    """What is stated about an item in a place."""
    return (Kind.ITEM,) if config.subset == "medium" else (Kind.ITEM, Kind.AVERAGE)


def totals_of(place: int, kinds: Iterable[Kind]) -> list[Quantity]:
    """The totals of a place about whose items these kinds of quantities are stated."""
    totals = (Kind.TOTAL, Kind.GRAND_TOTAL)
    return [Quantity(kind, place, NO_ITEM) for kind in totals if set(kind.parts) <= set(kinds)]


def most_stated(operations: int) -> int:
    """The most stated quantities that an answer of so many operations needs."""
    return min(max((operations + 1) // 2, 2), operations)


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


def draw_graph(
    stream: RandomStream, config: GsmInfiniteConfig, operations: int, *, ends_in_total: bool
) -> Graph | None:
    """One try; None if the draws do not lead to exactly this many operations.

    ends_in_total: whether the last quantity is a total wherever there is one.
    """
    stated = _draw_stated(stream, config, operations)
    chosen, totals = _choose(stream, stated, operations)
    if not totals and stream.below(4):
        return None  # most published problems hold a total
    order = _draw_order(stream, chosen, totals, ends_in_total)
    if order is None:
        return None
    parts = sum(quantity.is_part_of(total) for total in totals for quantity in chosen)
    operands = _draw_operands(stream, order, totals, operations - parts)
    return None if operands is None else Graph(tuple(stated), operands, tuple(order))


def _draw_stated(
    stream: RandomStream, config: GsmInfiniteConfig, operations: int
) -> list[Quantity]:
    """All quantities of a random bipartite graph of places and items."""
    kinds = stated_kinds(config)
    needed_edges = math.ceil((operations + 1) // 2 / len(kinds))
    places = _draw_size(stream, config.places)
    items = _draw_size(stream, config.items)
    while places * items < needed_edges:
        places = min(places + 1, config.places)
        items = min(items + 1, config.items)

    # Every place has an item, and every item a place.
    joined = max(places, items)
    edges = [(number % places, number % items) for number in range(joined)]
    others = [edge for edge in itertools.product(range(places), range(items)) if edge not in edges]
    stream.shuffle(others)
    fewest = max(needed_edges - joined, 0)
    edges += others[: fewest + stream.below(len(others) - fewest + 1)]
    return [Quantity(kind, *edge) for edge in edges for kind in kinds]


def _draw_size(stream: RandomStream, most: int) -> int:
    """1..most, those in the middle likelier: the mean of two uniform draws."""
    return (stream.below(most) + stream.below(most)) // 2 + 1


def _choose(
    stream: RandomStream, stated: list[Quantity], operations: int
) -> tuple[list[Quantity], list[Quantity]]:
    """Stated quantities for the answer to need, and totals that these make up."""
    fewest = max(1, operations // 2 - operations // 8)
    most = min(most_stated(operations), len(stated))
    count = fewest + stream.below(most - fewest + 1)
    left = operations - count  # each of them takes an operation at least

    chosen: list[Quantity] = []
    totals: list[Quantity] = []
    has_averages = any(quantity.kind == Kind.AVERAGE for quantity in stated)
    places = sorted({quantity.place for quantity in stated})
    stream.shuffle(places)
    places.sort(key=[quantity.place for quantity in stated].count)  # small ones fit in more often
    for place in places:
        is_grand = has_averages and stream.below(4) == 0
        total = Quantity(Kind.GRAND_TOTAL if is_grand else Kind.TOTAL, place, NO_ITEM)
        parts = [quantity for quantity in stated if quantity.is_part_of(total)]
        if len(parts) <= min(count - len(chosen), left) and len(totals) < _MAX_TOTALS:
            chosen += parts
            totals.append(total)
            left -= len(parts)

    others = [quantity for quantity in stated if quantity not in chosen]
    stream.shuffle(others)
    return chosen + others[: count - len(chosen)], totals


def _draw_order(
    stream: RandomStream, chosen: list[Quantity], totals: list[Quantity], ends_in_total: bool
) -> list[Quantity] | None:
    """A random order, each total after its parts; None if a total has no place before the end."""
    order = list(chosen)
    stream.shuffle(order)
    totals = sorted(totals, key=lambda total: total.kind)  # a grand total, if any, ends the order
    last = totals[-1:] if ends_in_total or stream.is_heads() else []
    for total in totals[: len(totals) - len(last)]:
        first = 1 + max(at for at, quantity in enumerate(order) if quantity.is_part_of(total))
        stop = len(order) + len(last)  # what ends in no total ends in a stated quantity
        if first >= stop:
            return None
        order.insert(first + stream.below(stop - first), total)
    return order + last


def _draw_operands(
    stream: RandomStream, order: list[Quantity], totals: list[Quantity], operations: int
) -> dict[Quantity, Operands] | None:
    """Operands of the stated quantities, `operations` in all, such that all lead to the last."""
    references: dict[Quantity, list[Quantity]] = {q: [] for q in order if not q.kind.parts}
    has_number = dict.fromkeys(references, False)
    for at, quantity in enumerate(order[:-1]):
        if not any(quantity.is_part_of(total) for total in totals):
            later = [other for other in order[at + 1 :] if other in references]
            if not later:
                return None
            references[stream.choose(later)].append(quantity)

    earlier = {quantity: order[:at] for at, quantity in enumerate(order)}

    def add_operand(quantity: Quantity) -> None:
        if not earlier[quantity] or (not has_number[quantity] and stream.is_heads()):
            has_number[quantity] = True
        else:
            references[quantity].append(stream.choose(earlier[quantity]))

    for quantity, given in references.items():
        if not given:
            add_operand(quantity)
    while operations > (used := sum(map(len, references.values())) + sum(has_number.values())):
        counts = {q: len(references[q]) + has_number[q] for q in references}
        growable = [q for q, count in counts.items() if earlier[q] and count < MAX_OPERANDS]
        if not growable:
            return None
        add_operand(stream.choose(growable))
    if used > operations or any(len(given) > MAX_OPERANDS for given in references.values()):
        return None
    for given in references.values():
        stream.shuffle(given)
    return {q: Operands(has_number[q], tuple(references[q])) for q in references}
