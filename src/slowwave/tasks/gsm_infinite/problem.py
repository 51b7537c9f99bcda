"""What a GSM-Infinite problem says, and the answer that follows from it.

A problem is a list of statements, each of which says how a quantity comes out of others, in any
order, and a question about one quantity. In a forward problem that quantity follows from the
statements it depends on. In a reverse problem it is the unknown, and the value of a quantity that
depends on it is given instead. Section 4.3 of the paper, after the public generator
(Infini-AI-Lab/gsm_infinite).
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable
from typing import Literal, NamedTuple

MAX_ANSWER = 1000

NO_ITEM = -1


class Kind(enum.IntEnum):
    """ITEM: how many there are of an item in a place. AVERAGE: a number per item, in a place.
    TOTAL: the sum of all items of a place. GRAND_TOTAL: the sum of item times average."""

    ITEM = 0
    AVERAGE = 1
    TOTAL = 2
    GRAND_TOTAL = 3

    @property
    def parts(self) -> tuple[Kind, ...]:
        """Of a total, the kinds of quantities that it is made of, for every item of its place."""
        return _PARTS[self]


_PARTS = {
    Kind.ITEM: (),
    Kind.AVERAGE: (),
    Kind.TOTAL: (Kind.ITEM,),
    Kind.GRAND_TOTAL: (Kind.ITEM, Kind.AVERAGE),
}


class Quantity(NamedTuple):
    """place and item are positions in the names of a problem; totals have NO_ITEM."""

    kind: Kind
    place: int
    item: int

    def is_part_of(self, total: Quantity) -> bool:
        """Whether `total` is a total of this quantity's place and kind."""
        return self.place == total.place and self.kind in total.kind.parts


class Expression(NamedTuple):
    """[number] [operation] [combination of] references, as in "3 plus the sum of ...".

    number alone stands for itself; with references, `operation` acts on all of them together.
    One reference is its own sum; the difference is that of two, the first less the second.
    """

    number: int | None = None
    operation: Literal["plus", "times"] | None = None
    references: tuple[Quantity, ...] = ()
    combination: Literal["sum", "difference"] = "sum"

    @property
    def operations(self) -> int:
        """What the benchmark counts: a reference is one, and so is the number."""
        return len(self.references) + (self.number is not None)


class Statement(NamedTuple):
    """What a quantity equals; None if it only exists, being the unknown."""

    quantity: Quantity
    expression: Expression | None


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """theme: a key of `names.THEMES`. places, items: the names that the quantities
    refer to by position."""

    theme: str
    places: tuple[str, ...]
    items: tuple[str, ...]
    statements: tuple[Statement, ...]
    question: Quantity

    @property
    def is_reverse(self) -> bool:
        """Whether something only exists, to be found from its consequence."""
        return any(statement.expression is None for statement in self.statements)


@dataclasses.dataclass(frozen=True, slots=True)
class Solution:
    """operations: over all quantities that the answer needs, the `Expression.operations` of its
    statement; a total counts the items it sums, a grand total twice those, the unknown one.
    values: of each quantity needed."""

    answer: int
    operations: int
    values: dict[Quantity, int]


Polynomial = tuple[int, ...]  # in the unknown, constant first


def solve(statements: Iterable[Statement], question: Quantity) -> Solution:
    """The answer, by following what the question needs and nothing else.

    Quantities that are not stated are 0. Raises ValueError, in one sentence, if what is needed is
    stated twice or depends on itself, if a reverse problem has not exactly one positive answer up
    to MAX_ANSWER, or if something else than its unknown is asked.
    """
    stated = _Stated(statements)
    if stated.unknown is None:
        values = stated.evaluate(question)
        solved = {quantity: value[0] for quantity, value in values.items()}
        answer = solved[question]
    else:
        if question != stated.unknown:
            raise ValueError("the question is not about the unknown; ask for what only exists")
        given, value = stated.find_given()
        values = stated.evaluate(given)
        answer = _positive_root(values[given], value)
        solved = {quantity: _at(polynomial, answer) for quantity, polynomial in values.items()}
    operations = sum(stated.operations(quantity) for quantity in solved)
    return Solution(answer, operations, solved)


class _Stated:
    """The statements of a problem, by quantity."""

    def __init__(self, statements: Iterable[Statement]) -> None:
        self.unknown: Quantity | None = None
        self._expressions: dict[Quantity, list[Expression]] = {}
        self._items: dict[int, list[int]] = {}
        for quantity, expression in statements:
            if expression is None:
                if self.unknown not in (None, quantity):
                    raise ValueError("two quantities only exist; state a value for one of them")
                self.unknown = quantity
            else:
                self._expressions.setdefault(quantity, []).append(expression)
            items = self._items.setdefault(quantity.place, [])
            if quantity.kind == Kind.ITEM and quantity.item not in items:
                items.append(quantity.item)

    def find_given(self) -> tuple[Quantity, int]:
        """What a reverse problem states the value of, although that follows from the unknown."""
        givens = [
            (quantity, expression.number)
            for quantity, expressions in self._expressions.items()
            for expression in expressions
            if expression.number is not None
            and not expression.references
            and (len(expressions) > 1 or quantity.kind.parts or quantity == self.unknown)
        ]
        if len(givens) != 1:
            raise ValueError(
                f"{len(givens)} values are given for what depends on the unknown; give exactly one"
            )
        return givens[0]

    def evaluate(self, root: Quantity) -> dict[Quantity, Polynomial]:
        """The values of `root` and all that it depends on, those first."""
        values: dict[Quantity, Polynomial] = {}
        begun: set[Quantity] = set()
        pending = [root]
        while pending:
            quantity = pending[-1]
            needed = self._needs(quantity)
            missing = [other for other in needed if other not in values]
            if not missing:
                values[quantity] = self._value(quantity, [values[other] for other in needed])
                pending.pop()
                continue
            begun.add(quantity)
            if begun.intersection(missing):
                raise ValueError("a needed quantity depends on itself; break the circle")
            pending += missing
        return values

    def operations(self, quantity: Quantity) -> int:
        """What the quantity counts if it is needed."""
        if quantity.kind.parts:
            return len(self._needs(quantity))
        expression = self._expression(quantity)
        if expression is None:
            return int(quantity == self.unknown)
        return expression.operations

    def _needs(self, quantity: Quantity) -> list[Quantity]:
        if parts := quantity.kind.parts:
            items = self._items.get(quantity.place, [])
            return [Quantity(kind, quantity.place, item) for item in items for kind in parts]
        expression = self._expression(quantity)
        return [] if expression is None else list(expression.references)

    def _value(self, quantity: Quantity, needed: list[Polynomial]) -> Polynomial:
        if quantity.kind == Kind.TOTAL:
            return _sum(needed)
        if quantity.kind == Kind.GRAND_TOTAL:
            pairs = zip(needed[::2], needed[1::2], strict=True)
            return _sum([_product(item, average) for item, average in pairs])
        expression = self._expression(quantity)
        if expression is None:
            return (0, 1) if quantity == self.unknown else (0,)
        if not needed:
            assert expression.number is not None
            return (expression.number,)
        if expression.combination == "difference":
            combined = _sum([needed[0], _product(needed[1], (-1,))])
        else:
            combined = _sum(needed)
        if expression.number is None:
            return combined
        number = (expression.number,)
        if expression.operation == "plus":
            return _sum([number, combined])
        return _product(number, combined)

    def _expression(self, quantity: Quantity) -> Expression | None:
        """How a quantity that is no total is derived; None for the unknown and the unmentioned."""
        if quantity == self.unknown:
            return None
        expressions = self._expressions.get(quantity, [])
        if len(expressions) > 1 and self.unknown is not None:
            expressions = [e for e in expressions if e.references]  # beside it, the value given
        if len(expressions) > 1:
            raise ValueError("a needed quantity is stated twice; state it once")
        return expressions[0] if expressions else None


def _sum(terms: list[Polynomial]) -> Polynomial:
    length = max((len(term) for term in terms), default=1)
    return tuple(sum(t[power] for t in terms if power < len(t)) for power in range(length))


def _product(one: Polynomial, other: Polynomial) -> Polynomial:
    result = [0] * (len(one) + len(other) - 1)
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            result[i + j] += a * b
    return tuple(result)


def _at(polynomial: Polynomial, x: int) -> int:
    value = 0
    for coefficient in reversed(polynomial):
        value = value * x + coefficient
    return value


def _positive_root(polynomial: Polynomial, value: int) -> int:
    """The only x in 1..MAX_ANSWER at which the polynomial has this value."""
    if len(polynomial) == 2 and polynomial[1] != 0:
        x, rest = divmod(value - polynomial[0], polynomial[1])
        roots = [x] if rest == 0 and 1 <= x <= MAX_ANSWER else []
    else:
        roots = [x for x in range(1, MAX_ANSWER + 1) if _at(polynomial, x) == value]
    if len(roots) != 1:
        raise ValueError(
            f"{len(roots)} values of the unknown fit what is given; exactly one must fit"
        )
    return roots[0]
