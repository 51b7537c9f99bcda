"""Draws what depends on what: the quantities that an answer needs, in an order that derives them.

The construction follows what is known of the public generator's output (op counts, numbers of
quantities and totals), not its code.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable

from slowwave.tasks.config import GsmInfiniteConfig
from slowwave.tasks.gsm_infinite_problem import NO_ITEM, Kind, Quantity
from slowwave.tasks.random_stream import RandomStream

MAX_OPERANDS = 4

_MAX_TOTALS = 2


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
