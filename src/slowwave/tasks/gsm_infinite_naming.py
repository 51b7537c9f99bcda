"""Puts names to the places and items of problems, such that their content belongs to a split.

The content of a problem is its core: theme, question and the set of its statements, in names. A
hash of it decides its split, so the same core among other distractors, in another order or with the
question elsewhere is in the same split.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from slowwave.tasks.gsm_infinite_core import Core
from slowwave.tasks.gsm_infinite_graph import MAX_OPERANDS
from slowwave.tasks.gsm_infinite_names import NUM_CORE_NAMES, THEMES
from slowwave.tasks.gsm_infinite_problem import Statement
from slowwave.tasks.random_bits import (
    Integers,
    Words,
    counter,
    draw_words,
    keyed_hash,
    mix,
    permutation,
)
from slowwave.tasks.splits import draw_in_split

_NOBODY = (-1, -1, -1)
_NO_STATEMENT = (-1, *_NOBODY * (1 + MAX_OPERANDS))
# Of a statement without an expression, and of the question; beyond all that a number can make.
_EXISTS = 1 << 20
_IS_ASKED = 1 << 21


def draw_names(split: str, seeds: Words, themes: Sequence[str], cores: Sequence[Core]) -> Integers:
    """Which of the core names the places and items of each problem go by.

    seeds: (B,). Returns (B, 2, NUM_CORE_NAMES): for places, then items, a permutation of names.
    """
    contents = encode_contents(cores)
    numbers = np.array([list(THEMES).index(theme) for theme in themes], dtype=np.uint64)
    slots = np.arange(2 * NUM_CORE_NAMES).reshape(2, NUM_CORE_NAMES)

    def propose(rows: Integers, attempts: Integers) -> tuple[Integers, Words]:
        counters = counter(slots, attempts[:, None, None])
        words = draw_words(seeds[rows, None, None, None], counters)
        names = permutation(words, np.full(words.shape[:-1], NUM_CORE_NAMES))
        return names, content_hash(names, numbers[rows], contents[rows])

    return draw_in_split(split, len(cores), propose)


def encode_contents(cores: Sequence[Core]) -> Integers:
    """Cores as numbers (B, S, 16), for `content_hash`: for the question and every statement, a code
    of its number and signs, then (kind, place, item) of the quantities in it; -1 where there is
    nothing."""
    rows = [
        [
            (_IS_ASKED, *core.question, *_NOBODY * MAX_OPERANDS),
            *(_encode(statement) for statement in (*core.needed, *core.unneeded)),
        ]
        for core in cores
    ]
    length = max(map(len, rows))
    return np.array([[*row, *[_NO_STATEMENT] * (length - len(row))] for row in rows])


def content_hash(names: Integers, themes: Words, contents: Integers) -> Words:
    """What decides the split of each core under A choices of names, (M, A).

    names: (M, A, 2, NUM_CORE_NAMES). themes: (M,). contents: (M, S, 16). A sum over the statements
    does not depend on their order, nor on the numbering of places and items.
    """
    num_rows, num_statements, _ = contents.shape
    codes = contents[:, None, :, 0]
    quantities = contents[:, None, :, 1:].reshape(num_rows, 1, -1, 3)
    kinds, places, items = np.moveaxis(quantities, -1, 0)
    named = [
        np.where(positions < 0, -1, np.take_along_axis(names[:, :, which], positions, axis=-1))
        for which, positions in enumerate((places, items))
    ]
    words = (kinds + 1) + (named[0] + 1 << 8) + (named[1] + 1 << 16)
    words = words.reshape(*words.shape[:2], num_statements, -1).astype(np.uint64)
    hashes = keyed_hash(codes.astype(np.uint64), "gsm_infinite", "split")
    for operand in range(words.shape[-1]):
        hashes = mix(hashes ^ words[..., operand])
    hashes = np.where(codes < 0, np.uint64(0), hashes)
    return mix(np.add.reduce(hashes, axis=-1) ^ mix(themes[:, None] + np.uint64(1)))


def _encode(statement: Statement) -> tuple[int, ...]:
    quantity, expression = statement
    if expression is None:
        return (_EXISTS, *quantity, *_NOBODY * MAX_OPERANDS)
    number = 0 if expression.number is None else 1 + expression.number
    signs = 4 * (expression.operation == "times") + 2 * (expression.operation == "plus")
    code = 8 * number + signs + (expression.combination == "difference")
    nobodies = _NOBODY * (MAX_OPERANDS - len(expression.references))
    return (code, *quantity, *itertools.chain.from_iterable(expression.references), *nobodies)
