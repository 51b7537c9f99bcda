"""The content of a problem: one however it is written down, another if it says something else."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from slowwave.tasks.draws import Integers, RandomStream
from slowwave.tasks.gsm_infinite import NUM_CORE_NAMES, GsmInfiniteConfig
from slowwave.tasks.gsm_infinite.core import Core, draw_core
from slowwave.tasks.gsm_infinite.names import content_hash, encode_contents
from slowwave.tasks.gsm_infinite.problem import NO_ITEM, Expression, Quantity, Statement

HARD = GsmInfiniteConfig(subset="hard", ops=(1, 8))
NAMES = np.arange(NUM_CORE_NAMES)


def hash_of(core: Core, names: Integers | None = None, theme: int = 0) -> int:
    """names: (2, NUM_CORE_NAMES), each position its own number if not given."""
    names = np.stack([NAMES, NAMES]) if names is None else names
    themes = np.array([theme], dtype=np.uint64)
    return int(content_hash(names[None, None], themes, encode_contents([core]))[0, 0])


def draw(seed: int, *, is_reverse: bool = False) -> Core:
    return draw_core(RandomStream(seed), HARD, 1 + seed % 8, is_reverse=is_reverse)


def renumbered(core: Core, places: list[int], items: list[int]) -> Core:
    def move(quantity: Quantity) -> Quantity:
        item = NO_ITEM if quantity.item == NO_ITEM else items[quantity.item]
        return Quantity(quantity.kind, places[quantity.place], item)

    def move_all(statement: Statement) -> Statement:
        quantity, expression = statement
        if expression is not None:
            references = tuple(move(reference) for reference in expression.references)
            expression = expression._replace(references=references)
        return Statement(move(quantity), expression)

    return dataclasses.replace(
        core,
        needed=tuple(map(move_all, core.needed)),
        unneeded=tuple(map(move_all, core.unneeded)),
        question=move(core.question),
    )


@given(seed=st.integers(0, 10**6), is_reverse=st.booleans(), rng=st.randoms(use_true_random=False))
def test_order_and_numbering_change_nothing(
    seed: int, is_reverse: bool, rng: random.Random
) -> None:
    core = draw(seed, is_reverse=is_reverse)
    statements = [*core.needed, *core.unneeded]
    rng.shuffle(statements)
    shuffled = dataclasses.replace(core, needed=tuple(statements), unneeded=())
    assert hash_of(shuffled) == hash_of(core)

    places, items = (rng.sample(range(NUM_CORE_NAMES), NUM_CORE_NAMES) for _ in range(2))
    # A name moves along with its number.
    names = np.stack([np.argsort(places), np.argsort(items)])
    assert hash_of(renumbered(core, places, items), names) == hash_of(core)


def test_rows_and_choices_of_names_do_not_mix() -> None:
    cores = [draw(3), draw(7, is_reverse=True), draw(8)]
    names = np.array(
        [[[np.roll(NAMES, 5 * row + a) for _ in "pi"] for a in range(4)] for row in range(3)]
    )
    themes = np.array([2, 0, 1], dtype=np.uint64)
    hashes = content_hash(names, themes, encode_contents(cores))
    for row, core in enumerate(cores):
        alone = [hash_of(core, names[row, a], int(themes[row])) for a in range(4)]
        assert hashes[row].tolist() == alone
    assert len(np.unique(hashes)) == 12


def with_first(core: Core, **changes: Any) -> Core:
    """The core with its first sum of two changed."""
    statements = [*core.needed, *core.unneeded]
    at = next(n for n, (_, e) in enumerate(statements) if e is not None and len(e.references) == 2)
    quantity, expression = statements[at]
    assert expression is not None
    statements[at] = Statement(quantity, expression._replace(**changes))
    return dataclasses.replace(core, needed=tuple(statements), unneeded=())


def test_whatever_it_says_counts() -> None:
    seed = next(
        seed
        for seed in range(1000)
        if any(
            e is not None and len(e.references) == 2 and e.references[0] != e.references[1]
            for _, e in draw(seed).needed
        )
    )
    core = draw(seed)
    one, other = next(
        e.references for _, e in core.needed if e is not None and len(e.references) == 2
    )
    variants = [
        core,
        *(
            with_first(core, number=number, operation=operation, combination=combination)
            for number, operation in ((None, None), (2, "plus"), (2, "times"), (3, "times"))
            for combination in ("sum", "difference")
        ),
        with_first(core, references=(other, one)),
        with_first(core, references=(one,)),
        with_first(core, references=(one, other, other)),
        dataclasses.replace(core, question=core.needed[0].quantity),
        dataclasses.replace(core, needed=core.needed[1:]),
        dataclasses.replace(
            core, needed=(Statement(core.needed[0].quantity, None), *core.needed[1:])
        ),
        dataclasses.replace(
            core,
            needed=(Statement(core.needed[0].quantity, Expression(999)), *core.needed[1:]),
        ),
    ]
    hashes = [hash_of(variant) for variant in variants]
    # The core itself is one of the eight that differ in numbers and signs alone.
    assert len(set(hashes)) == len(variants) - 1
    assert hash_of(core, theme=1) not in hashes
    for which, name in ((0, core.needed[0].quantity.place), (1, core.needed[0].quantity.item)):
        names = np.stack([NAMES, NAMES])
        names[which, [name, 20]] = names[which, [20, name]]
        assert hash_of(core, names) not in hashes
