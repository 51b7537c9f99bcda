"""Problems in words, in the grammar of the public GSM-Infinite generator.

    statement := NAME "equals" expression
               | NAME "exists, and its number is greater than 0" | NAME "is greater than 0"
    expression := INT | [INT "plus" | INT "times"] references
    references := NAME | "the sum of" NAME "and" NAME | "the difference between" NAME "and" NAME
                | "the sum of" NAME "," ... ", and" NAME
    NAME := "the number of" ITEM "in" PLACE | "the" AVERAGE "per" ITEM "in" PLACE
          | "the" TOTAL "in" PLACE | "the" GRAND_TOTAL "in" PLACE
    question := "How many" ITEM "does" PLACE "have?" | "What is" NAME "?"

Text is made of phrases: the words in quotes, numbers, names, and what the theme calls its totals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from slowwave.tasks.gsm_infinite_names import THEMES
from slowwave.tasks.gsm_infinite_problem import Expression, Kind, Problem, Quantity, Statement

ITEM_EXISTS = "exists, and its number is greater than 0"
IS_POSITIVE = "is greater than 0"

FIXED_PHRASES = (
    *("the number of", "the", "per", "in", "equals", "plus", "times", "the sum of"),
    *("the difference between", "and", ",", ", and", ".", ITEM_EXISTS, IS_POSITIVE),
    *("how many", "does", "have", "what is", "?"),
)


def statement_phrases(problem: Problem, statement: Statement) -> list[str]:
    """The phrases of a statement, its full stop included; all but names in lower case."""
    quantity, expression = statement
    name = list(_name(problem, quantity))
    if expression is None:
        return [*name, ITEM_EXISTS if quantity.kind == Kind.ITEM else IS_POSITIVE, "."]
    return [*name, "equals", *_expression(problem, expression), "."]


def question_phrases(problem: Problem) -> list[str]:
    """The phrases of the question, its question mark included."""
    asked = problem.question
    if asked.kind == Kind.ITEM:
        item, place = problem.items[asked.item], problem.places[asked.place]
        return ["how many", item, "does", place, "have", "?"]
    return ["what is", *_name(problem, asked), "?"]


def to_text(phrases: Iterable[str]) -> str:
    """Phrases as a sentence, its first letter large."""
    text = " ".join(phrases)
    for mark in (",", ".", "?"):
        text = text.replace(f" {mark}", mark)
    return text[0].upper() + text[1:]


def _name(problem: Problem, quantity: Quantity) -> Iterator[str]:
    theme, place = THEMES[problem.theme], problem.places[quantity.place]
    match quantity.kind:
        case Kind.ITEM:
            yield from ("the number of", problem.items[quantity.item])
        case Kind.AVERAGE:
            yield from ("the", theme.average, "per", problem.items[quantity.item])
        case Kind.TOTAL:
            yield from ("the", theme.total)
        case Kind.GRAND_TOTAL:
            yield from ("the", theme.grand_total)
    yield from ("in", place)


def _expression(problem: Problem, expression: Expression) -> Iterator[str]:
    references = expression.references
    if expression.number is not None:
        yield str(expression.number)
    if expression.operation is not None:
        yield expression.operation
    if len(references) > 1:
        yield "the difference between" if expression.combination == "difference" else "the sum of"
    last = len(references) - 1
    for position, quantity in enumerate(references):
        if position:
            yield "," if position < last else "and" if last == 1 else ", and"
        yield from _name(problem, quantity)
