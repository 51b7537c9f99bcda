"""Which lengths problems of a config can have, in tokens, and which they cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from slowwave.tasks.config import GsmInfiniteConfig
from slowwave.tasks.gsm_infinite_grammar import Grammar
from slowwave.tasks.gsm_infinite_graph import MAX_OPERANDS, most_stated, stated_kinds, totals_of
from slowwave.tasks.gsm_infinite_names import (
    NUM_CORE_NAMES,
    NUM_OTHER_ITEMS,
    NUM_OTHER_PLACES,
    THEMES,
)
from slowwave.tasks.gsm_infinite_problem import (
    MAX_ANSWER,
    Expression,
    Problem,
    Quantity,
    Statement,
)

Choose = Callable[..., Any]  # max or min


def named_alike(theme: str, choose: Choose, question: Quantity) -> Problem:
    """A problem without statements, whose places all have the longest name or all the shortest, and
    so its items."""
    names = THEMES[theme]
    place: str = choose(names.places, key=lambda name: len(name.split()))
    item: str = choose(names.items, key=lambda name: len(name.split()))
    places, items = (place,) * len(names.places), (item,) * len(names.items)
    return Problem(theme, places, items, (), question)


def most_question_tokens(config: GsmInfiniteConfig, grammar: Grammar) -> int:
    """Tokens of the longest question."""
    return max(len(grammar.question(problem)) for problem in _problems(config, max))


def check_lengths(config: GsmInfiniteConfig, grammar: Grammar) -> None:
    """Raises ValueError unless problems can have the lengths of the config."""

    def tokens(choose: Choose, expression: Callable[[Quantity], Expression]) -> int:
        lengths: list[int] = []
        for problem in _problems(config, choose):
            statement = Statement(problem.question, expression(problem.question))
            lengths.append(len(grammar.statement(problem, statement)))
        return choose(lengths)

    def longest(references: int) -> int:
        return tokens(max, lambda quantity: Expression(4, "plus", (quantity,) * references))

    fewest, most = config.length
    operations = config.ops[1]
    reference = longest(MAX_OPERANDS) - longest(MAX_OPERANDS - 1)
    rest = longest(MAX_OPERANDS) - MAX_OPERANDS * reference
    needed = most_question_tokens(config, grammar)
    needed += most_stated(operations) * rest + operations * reference
    if config.mode != "forward":
        needed += tokens(max, lambda _: Expression(MAX_ANSWER))
    if most < needed:
        _refuse(config, f"let it end with {needed} or more, as {operations} operations may need")

    if config.distractors == "none":
        return
    if config.distractors == "surface":
        pairs = NUM_OTHER_PLACES * NUM_OTHER_ITEMS
        shortest = tokens(min, lambda quantity: Expression(references=(quantity,)))
    else:
        pairs = (NUM_CORE_NAMES - config.places) * NUM_CORE_NAMES
        shortest = tokens(min, lambda _: Expression(1))
    available = pairs * len(stated_kinds(config)) * shortest
    if most > available:
        _refuse(config, f"let it end with {available} or less, all that distractors may amount to")
    if fewest > 0 and most - fewest < longest(MAX_OPERANDS):
        _refuse(config, f"leave {longest(MAX_OPERANDS)} between, which one distractor may take")


def _problems(config: GsmInfiniteConfig, choose: Choose) -> Iterator[Problem]:
    """One for each theme and kind of quantity, which is asked."""
    kinds = stated_kinds(config)
    asked = [*(Quantity(kind, 0, 0) for kind in kinds), *totals_of(0, kinds)]
    for theme in config.themes:
        for quantity in asked:
            yield named_alike(theme, choose, quantity)


def _refuse(config: GsmInfiniteConfig, mend: str) -> None:
    raise ValueError(f"task.length is {config.length}; {mend}")
