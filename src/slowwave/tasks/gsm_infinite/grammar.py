"""The two ways in which GSM-Infinite is written in tokens, and how many tokens these are.

words: the language of the public generator, each word, digit and mark a token:

    statement := NAME "equals" expression
               | NAME "exists, and its number is greater than 0" | NAME "is greater than 0"
    expression := INT | [INT "plus" | INT "times"] references
    references := NAME | "the sum of" NAME "and" NAME | "the difference between" NAME "and" NAME
                | "the sum of" NAME "," ... ", and" NAME
    NAME := "the number of" ITEM "in" PLACE | "the" AVERAGE "per" ITEM "in" PLACE
          | "the" TOTAL "in" PLACE | "the" GRAND_TOTAL "in" PLACE
    question := "How many" ITEM "does" PLACE "have?" | "What is" NAME "?"

Text is made of phrases: the words in quotes, numbers, names, and what the theme calls its totals.
compact: one token for each name, digit and sign, and none for what these already say:

    statement := NAME "=" expression "." | NAME "exists" "."
    expression := INT | [INT "plus" | INT "times"] ["sum" | "difference"] NAME ...
    NAME := ITEM PLACE | "average" ITEM PLACE | "total" PLACE | "grand total" PLACE
    question := NAME "?"

Numbers in a problem are digits in reading order. An answer is ANSWER_DIGITS digits, units first and
zeros after: each digit then needs less of the calculation than the one before it, as adding on
paper goes (arXiv 2307.03381), all numbers up to 1000 share ten tokens, and the model need not guess
the length first.

Ids: padding 0, the answer slot 1, digits 2..11, then the fixed words, places and items.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from slowwave.tasks.gsm_infinite import (
    NUM_CORE_NAMES,
    NUM_OTHER_ITEMS,
    NUM_OTHER_PLACES,
    GsmInfiniteConfig,
)
from slowwave.tasks.gsm_infinite.core import MAX_OPERANDS, most_stated, stated_kinds, totals_of
from slowwave.tasks.gsm_infinite.names import THEMES
from slowwave.tasks.gsm_infinite.problem import (
    MAX_ANSWER,
    Expression,
    Kind,
    Problem,
    Quantity,
    Statement,
)

PADDING = 0
ANSWER_SLOT = 1
ANSWER_DIGITS = 4

_FIRST_DIGIT = 2

_SIGNS = ("=", ".", "?", "plus", "times", "sum", "difference", "exists")
_KIND_SIGNS = {Kind.AVERAGE: "average", Kind.TOTAL: "total", Kind.GRAND_TOTAL: "grand total"}

ITEM_EXISTS = "exists, and its number is greater than 0"
IS_POSITIVE = "is greater than 0"

FIXED_PHRASES = (
    *("the number of", "the", "per", "in", "equals", "plus", "times", "the sum of"),
    *("the difference between", "and", ",", ", and", ".", ITEM_EXISTS, IS_POSITIVE),
    *("how many", "does", "have", "what is", "?"),
)

Choose = Callable[..., Any]  # max or min


def answer_digits(answer: int) -> list[int]:
    """The token ids of an answer, units first."""
    return [_FIRST_DIGIT + answer // 10**power % 10 for power in range(ANSWER_DIGITS)]


class Grammar:
    """Turns problems into token ids. vocabulary: what each id stands for.

    write, ask: the phrases of a statement, and of the question of a problem. Each phrase in
    `phrases` is one token, or several if `split` takes it apart; others are numbers.
    """

    def __init__(
        self,
        phrases: Sequence[str],
        split: Callable[[str], list[str]],
        write: Callable[[Problem, Statement], list[str]],
        ask: Callable[[Problem], list[str]],
    ) -> None:
        words = (word for phrase in phrases for word in split(phrase))
        self.vocabulary = tuple(dict.fromkeys(["<padding>", "<answer>", *"0123456789", *words]))
        ids = {word: number for number, word in enumerate(self.vocabulary)}
        self._ids = {phrase: [ids[word] for word in split(phrase)] for phrase in phrases}
        self._write, self._ask = write, ask

    def statement(self, problem: Problem, statement: Statement) -> list[int]:
        """The ids of a statement, its end included."""
        return self._encode(self._write(problem, statement))

    def question(self, problem: Problem) -> list[int]:
        """The ids of the question."""
        return self._encode(self._ask(problem))

    def _encode(self, phrases: list[str]) -> list[int]:
        return [id_ for phrase in phrases for id_ in self._ids.get(phrase) or _digits(phrase)]


def make_grammar(config: GsmInfiniteConfig) -> Grammar:
    """The grammar that a config asks for; its ids depend on the themes alone."""
    themes = [theme for name, theme in THEMES.items() if name in config.themes]
    if config.grammar == "compact":
        names = (name for theme in themes for name in (*theme.places, *theme.items))
        signs = [*_SIGNS, *_KIND_SIGNS.values(), *names]
        return Grammar(signs, lambda sign: [sign], statement_signs, question_signs)
    phrases = [*FIXED_PHRASES]
    for theme in themes:
        phrases += [theme.total, theme.grand_total, theme.average, *theme.places, *theme.items]
    return Grammar(phrases, _words, statement_phrases, question_phrases)


def statement_signs(problem: Problem, statement: Statement) -> list[str]:
    """The signs of a statement in the compact grammar, its end included."""
    quantity, expression = statement
    name = _name_signs(problem, quantity)
    if expression is None:
        return [*name, "exists", "."]
    signs = [*name, "="]
    if expression.number is not None:
        signs.append(str(expression.number))
    if expression.operation is not None:
        signs.append(expression.operation)
    if len(expression.references) > 1:
        signs.append(expression.combination)
    for other in expression.references:
        signs += _name_signs(problem, other)
    return [*signs, "."]


def question_signs(problem: Problem) -> list[str]:
    """The signs of the question in the compact grammar."""
    return [*_name_signs(problem, problem.question), "?"]


def statement_phrases(problem: Problem, statement: Statement) -> list[str]:
    """The phrases of a statement, its full stop included; all but names in lower case."""
    quantity, expression = statement
    name = list(name_phrases(problem, quantity))
    if expression is None:
        return [*name, ITEM_EXISTS if quantity.kind == Kind.ITEM else IS_POSITIVE, "."]
    return [*name, "equals", *_expression(problem, expression), "."]


def question_phrases(problem: Problem) -> list[str]:
    """The phrases of the question, its question mark included."""
    asked = problem.question
    if asked.kind == Kind.ITEM:
        item, place = problem.items[asked.item], problem.places[asked.place]
        return ["how many", item, "does", place, "have", "?"]
    return ["what is", *name_phrases(problem, asked), "?"]


def to_text(phrases: Iterable[str]) -> str:
    """Phrases as a sentence, its first letter large."""
    text = " ".join(phrases)
    for mark in (",", ".", "?"):
        text = text.replace(f" {mark}", mark)
    return text[0].upper() + text[1:]


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


def _words(phrase: str) -> list[str]:
    """Words, single digits and marks."""
    return re.findall(r"[0-9]|[,.?]|[^\s0-9,.?]+", phrase)


def _digits(number: str) -> list[int]:
    return [_FIRST_DIGIT + int(digit) for digit in number]


def _name_signs(problem: Problem, quantity: Quantity) -> list[str]:
    place = problem.places[quantity.place]
    if quantity.kind == Kind.ITEM:
        return [problem.items[quantity.item], place]
    if quantity.kind == Kind.AVERAGE:
        return [_KIND_SIGNS[quantity.kind], problem.items[quantity.item], place]
    return [_KIND_SIGNS[quantity.kind], place]


def name_phrases(problem: Problem, quantity: Quantity) -> Iterator[str]:
    """The phrases that name a quantity within a sentence."""
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
        yield from name_phrases(problem, quantity)


def _problems(config: GsmInfiniteConfig, choose: Choose) -> Iterator[Problem]:
    """One for each theme and kind of quantity, which is asked."""
    kinds = stated_kinds(config)
    asked = [*(Quantity(kind, 0, 0) for kind in kinds), *totals_of(0, kinds)]
    for theme in config.themes:
        for quantity in asked:
            yield named_alike(theme, choose, quantity)


def _refuse(config: GsmInfiniteConfig, mend: str) -> None:
    raise ValueError(f"task.length is {config.length}; {mend}")
