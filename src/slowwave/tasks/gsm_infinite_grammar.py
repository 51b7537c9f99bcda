"""The two ways in which GSM-Infinite is written in tokens.

words: the text of `gsm_infinite_text`, each word, digit and mark a token. compact: one token for
each name, digit and sign, and none for what these already say:

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
from collections.abc import Iterable, Iterator
from typing import Protocol

from slowwave.tasks.config import GsmInfiniteConfig
from slowwave.tasks.gsm_infinite_names import THEMES
from slowwave.tasks.gsm_infinite_problem import Expression, Kind, Problem, Quantity, Statement
from slowwave.tasks.gsm_infinite_text import FIXED_PHRASES, question_phrases, statement_phrases

PADDING = 0
ANSWER_SLOT = 1
ANSWER_DIGITS = 4

_FIRST_DIGIT = 2

_SIGNS = ("=", ".", "?", "plus", "times", "sum", "difference", "exists")
_KIND_SIGNS = {Kind.AVERAGE: "average", Kind.TOTAL: "total", Kind.GRAND_TOTAL: "grand total"}


def answer_digits(answer: int) -> list[int]:
    """The token ids of an answer, units first."""
    return [_FIRST_DIGIT + answer // 10**power % 10 for power in range(ANSWER_DIGITS)]


class Grammar(Protocol):
    """Turns problems into token ids."""

    vocabulary: tuple[str, ...]
    """What each id stands for."""

    def statement(self, problem: Problem, statement: Statement) -> list[int]:
        """The ids of a statement, its end included."""
        ...

    def question(self, problem: Problem) -> list[int]:
        """The ids of the question."""
        ...


class WordsGrammar:
    """See the module."""

    def __init__(self, themes: Iterable[str]) -> None:
        phrases = [*FIXED_PHRASES]
        for theme in (THEMES[name] for name in themes):
            phrases += [theme.total, theme.grand_total, theme.average, *theme.places, *theme.items]
        self.vocabulary = _vocabulary(word for phrase in phrases for word in _words(phrase))
        ids = {word: number for number, word in enumerate(self.vocabulary)}
        self._ids = {phrase: [ids[word] for word in _words(phrase)] for phrase in phrases}

    def statement(self, problem: Problem, statement: Statement) -> list[int]:
        """See `Grammar.statement`."""
        return self._encode(statement_phrases(problem, statement))

    def question(self, problem: Problem) -> list[int]:
        """See `Grammar.question`."""
        return self._encode(question_phrases(problem))

    def _encode(self, phrases: list[str]) -> list[int]:
        return [id_ for phrase in phrases for id_ in self._ids.get(phrase) or _digits(phrase)]


class CompactGrammar:
    """See the module."""

    def __init__(self, themes: Iterable[str]) -> None:
        names = [
            name
            for theme in (THEMES[name] for name in themes)
            for name in (*theme.places, *theme.items)
        ]
        self.vocabulary = _vocabulary([*_SIGNS, *_KIND_SIGNS.values(), *names])
        self._ids = {word: number for number, word in enumerate(self.vocabulary)}

    def statement(self, problem: Problem, statement: Statement) -> list[int]:
        """See `Grammar.statement`."""
        quantity, expression = statement
        ids = self._name(problem, quantity)
        if expression is None:
            ids.append(self._ids["exists"])
        else:
            ids.append(self._ids["="])
            ids += self._expression(problem, expression)
        ids.append(self._ids["."])
        return ids

    def question(self, problem: Problem) -> list[int]:
        """See `Grammar.question`."""
        return [*self._name(problem, problem.question), self._ids["?"]]

    def _name(self, problem: Problem, quantity: Quantity) -> list[int]:
        ids = self._ids
        place = ids[problem.places[quantity.place]]
        if quantity.kind == Kind.ITEM:
            return [ids[problem.items[quantity.item]], place]
        sign = ids[_KIND_SIGNS[quantity.kind]]
        if quantity.kind == Kind.AVERAGE:
            return [sign, ids[problem.items[quantity.item]], place]
        return [sign, place]

    def _expression(self, problem: Problem, expression: Expression) -> Iterator[int]:
        if expression.number is not None:
            yield from _digits(str(expression.number))
        if expression.operation is not None:
            yield self._ids[expression.operation]
        if len(expression.references) > 1:
            yield self._ids[expression.combination]
        for quantity in expression.references:
            yield from self._name(problem, quantity)


def make_grammar(config: GsmInfiniteConfig) -> Grammar:
    """The grammar that a config asks for; its ids depend on the themes alone."""
    themes = [name for name in THEMES if name in config.themes]
    return WordsGrammar(themes) if config.grammar == "words" else CompactGrammar(themes)


def _vocabulary(words: Iterable[str]) -> tuple[str, ...]:
    """What each id stands for; words that return keep their first id."""
    return tuple(dict.fromkeys(["<padding>", "<answer>", *"0123456789", *words]))


def _words(phrase: str) -> list[str]:
    """Words, single digits and marks."""
    return re.findall(r"[0-9]|[,.?]|[^\s0-9,.?]+", phrase)


def _digits(number: str) -> list[int]:
    return [_FIRST_DIGIT + int(digit) for digit in number]
