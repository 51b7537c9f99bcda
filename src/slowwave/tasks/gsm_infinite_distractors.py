"""Statements that nothing needs, added to make a problem longer.

surface: as in the public generator. They never state a number, their places are never those of
the core and their items come from lists of their own, so that a reader who never calculates can
leave them out. blended: about places and items of the core's own lists, the core's own among them,
and each in the form of a statement that is needed; only following the question tells them apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from slowwave.tasks.config import GsmInfiniteConfig
from slowwave.tasks.gsm_infinite_core import Core, draw_expression
from slowwave.tasks.gsm_infinite_graph import Operands, stated_kinds, totals_of
from slowwave.tasks.gsm_infinite_names import NUM_CORE_NAMES, NUM_OTHER_ITEMS, NUM_OTHER_PLACES
from slowwave.tasks.gsm_infinite_problem import NO_ITEM, Kind, Quantity, Statement
from slowwave.tasks.random_stream import RandomStream


def draw_surface(
    stream: RandomStream, config: GsmInfiniteConfig, core: Core
) -> Iterator[Statement]:
    """Statements about three or four other places, and about more once these are used up.

    Each refers to two quantities of the core, or to one, now and then with the total of another
    distractor place.
    """
    kinds = stated_kinds(config)
    quantities = _quantities(core, kinds)
    places = list(range(NUM_CORE_NAMES, NUM_CORE_NAMES + NUM_OTHER_PLACES))
    items = range(NUM_CORE_NAMES, NUM_CORE_NAMES + NUM_OTHER_ITEMS)
    stream.shuffle(places)
    in_use: list[int] = []
    while len(in_use) < len(places):
        group = places[len(in_use) :][: 1 if in_use else 3 + stream.below(2)]
        in_use += group
        about = [
            Quantity(kind, *pair) for pair in itertools.product(group, items) for kind in kinds
        ]
        stream.shuffle(about)
        for quantity in about:
            references = [stream.choose(quantities)]
            if stream.is_heads():
                references.append(stream.choose(quantities))
            elif stream.below(8) == 0:
                elsewhere = [place for place in in_use if place != quantity.place]
                references.append(Quantity(Kind.TOTAL, stream.choose(elsewhere), NO_ITEM))
            operands = Operands(has_number=False, references=tuple(references))
            yield Statement(quantity, draw_expression(stream, operands))


def draw_blended(
    stream: RandomStream, config: GsmInfiniteConfig, core: Core
) -> Iterator[Statement]:
    """Statements about the core's own places and items, joined by more of the same lists whenever
    half of all pairs is in use, so that the core's are as crowded as the others.

    A place whose total is needed takes no more items.
    """
    kinds = stated_kinds(config)
    quantities = _quantities(core, kinds)
    forms = [_form(statement) for statement in core.needed[: -1 if core.is_reverse else None]]
    in_use = {(q.place, q.item) for q in quantities if q.item != NO_ITEM}
    places = sorted({place for place, _ in in_use} - core.closed_places)
    items = sorted({item for _, item in in_use})
    more_places = [p for p in range(NUM_CORE_NAMES) if p not in {place for place, _ in in_use}]
    more_items = [item for item in range(NUM_CORE_NAMES) if item not in items]
    free = [pair for pair in itertools.product(places, items) if pair not in in_use]
    while True:
        while 2 * len(free) <= len(places) * len(items) and (more_places or more_items):
            if more_places and (len(places) <= len(items) or not more_items):
                place = more_places.pop(stream.below(len(more_places)))
                places.append(place)
                free += [(place, item) for item in items]
                quantities += totals_of(place, kinds)
            else:
                item = more_items.pop(stream.below(len(more_items)))
                items.append(item)
                free += [(place, item) for place in places]
        if not free:
            return
        pair = free.pop(stream.below(len(free)))
        for kind in kinds:
            form = stream.choose(forms)
            references = tuple(stream.choose(quantities) for _ in form.references)
            yield Statement(
                Quantity(kind, *pair),
                draw_expression(stream, Operands(form.has_number, references)),
            )
        quantities += [Quantity(kind, *pair) for kind in kinds]


def _quantities(core: Core, kinds: tuple[Kind, ...]) -> list[Quantity]:
    """All that distractors may refer to: what is stated, and the totals."""
    statements = (*core.needed, *core.unneeded)
    stated = list(dict.fromkeys(s.quantity for s in statements if not s.quantity.kind.parts))
    places = sorted({quantity.place for quantity in stated})
    return [*stated, *(total for place in places for total in totals_of(place, kinds))]


def _form(statement: Statement) -> Operands:
    """The operands of a statement; the unknown counts as what it is in a forward problem."""
    expression = statement.expression
    if expression is None:
        return Operands(has_number=True, references=())
    return Operands(expression.number is not None, expression.references)
