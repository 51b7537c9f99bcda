"""Reads problems of the public GSM-Infinite generator, one JSON object a line.

Used fields: template, problem, question, op, and answer or else solution, which then ends with
"Answer: N.". `grammar` has the grammar. Names may hold " in " and " and "; a place
starts with a capital, and an item with anything else.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, cast

from slowwave.tasks.gsm_infinite.grammar import IS_POSITIVE, ITEM_EXISTS
from slowwave.tasks.gsm_infinite.names import THEMES
from slowwave.tasks.gsm_infinite.problem import (
    NO_ITEM,
    Expression,
    Kind,
    Problem,
    Quantity,
    Statement,
    solve,
)

_THEME_OF_TEMPLATE = {theme.official_name: name for name, theme in THEMES.items()}

_QUOTED_CHARACTERS = 120


@dataclasses.dataclass(frozen=True, slots=True)
class OfficialRow:
    """A problem with the answer and the number of operations that its line states."""

    line: int
    problem: Problem
    answer: int
    operations: int


def read_official(path: str | Path) -> list[OfficialRow]:
    """All rows of a JSON Lines file; empty lines are skipped.

    Raises ValueError naming the file and the line, if it is missing or malformed.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; name a JSON Lines file") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    rows: list[OfficialRow] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                rows.append(_read_row(number, line))
            except ValueError as error:
                raise ValueError(f"{path}: line {number}: {error}") from None
    if not rows:
        raise ValueError(f"{path}: no line holds a problem; name a file of one JSON object a line")
    return rows


def find_difference(row: OfficialRow) -> str | None:
    """What differs between a row and our solution of it, in a sentence; None if nothing does."""
    try:
        solution = solve(row.problem.statements, row.problem.question)
    except ValueError as error:
        return f"line {row.line}: {error}"
    stated, found = (row.answer, row.operations), (solution.answer, solution.operations)
    if stated == found:
        return None
    return f"line {row.line}: answer and op are stated as {stated} and come out as {found}"


def parse_problem(theme: str, problem: str, question: str) -> Problem:
    """Text to a problem; raises ValueError quoting what is outside the grammar."""
    reader = _Reader(theme)
    text = problem.strip()
    if not text.endswith("."):
        raise ValueError(f"problem ends with {text[-20:]!r}; end each statement with a full stop")
    statements = tuple(reader.statement(part) for part in re.split(r"\. (?=The )", text[:-1]))
    asked = reader.question(question.strip())
    return Problem(theme, tuple(reader.places), tuple(reader.items), statements, asked)


def _read_row(number: int, line: str) -> OfficialRow:
    try:
        values = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        raise ValueError("not JSON; write one JSON object a line") from None
    if not isinstance(values, dict):
        raise ValueError(f"a {type(values).__name__}; write one JSON object a line")
    fields = cast(dict[str, Any], values)
    template = _field(fields, "template", str)
    if template not in _THEME_OF_TEMPLATE:
        raise ValueError(f"template is {template!r}; use one of {', '.join(_THEME_OF_TEMPLATE)}")
    problem = parse_problem(
        _THEME_OF_TEMPLATE[template],
        _field(fields, "problem", str),
        _field(fields, "question", str),
    )
    return OfficialRow(number, problem, _answer(fields), _field(fields, "op", int))


def _answer(fields: dict[str, Any]) -> int:
    if "answer" in fields or "solution" not in fields:
        return _field(fields, "answer", int)
    found = re.search(r"Answer: (\d+)\.\s*$", _field(fields, "solution", str))
    if found is None:
        raise ValueError("solution does not end with an answer; end it with 'Answer: N.'")
    return int(found[1])


def _field(fields: dict[str, Any], name: str, kind: type) -> Any:
    if name not in fields:
        raise ValueError(f"{name} is missing; give it")
    value = fields[name]
    if type(value) is not kind:
        wanted = "a string" if kind is str else "an integer"
        raise ValueError(f"{name} is {_quoted(value)}; give {wanted}")
    return value


def _quoted(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _QUOTED_CHARACTERS else f"{text[:_QUOTED_CHARACTERS]}..."


class _Reader:
    """Numbers names in the order in which they turn up."""

    def __init__(self, theme: str) -> None:
        self.places: dict[str, int] = {}
        self.items: dict[str, int] = {}
        words = THEMES[theme]
        self._average = f"the {words.average} per "
        self._totals = {
            Kind.TOTAL: f"the {words.total} in ",
            Kind.GRAND_TOTAL: f"the {words.grand_total} in ",
        }
        heads = ("the number of ", self._average, *self._totals.values())
        self._between_names = re.compile(
            f"(?:, and |, | and )(?={'|'.join(re.escape(head) for head in heads)})"
        )

    def statement(self, text: str) -> Statement:
        if not text.startswith("The "):
            raise ValueError(f"the statement {_quoted(text)} does not start with 'The'; mend it")
        sentence = "the " + text[len("The ") :]
        for ending in (ITEM_EXISTS, IS_POSITIVE):
            if sentence.endswith(f" {ending}"):
                return Statement(self._name(sentence.removesuffix(f" {ending}")), None)
        name, equals, expression = sentence.partition(" equals ")
        if not equals:
            raise ValueError(
                f"the statement {_quoted(text)} says neither 'equals' nor 'is greater than 0'; "
                "mend it"
            )
        return Statement(self._name(name), self._expression(expression))

    def question(self, text: str) -> Quantity:
        if text.startswith("How many ") and text.endswith(" have?"):
            asked = text.removeprefix("How many ").removesuffix(" have?")
            names = _split_before_capital(asked, " does ")
            if names is not None:
                return Quantity(Kind.ITEM, self._place(names[1]), self._item(names[0]))
        if text.startswith("What is ") and text.endswith("?"):
            return self._name(text.removeprefix("What is ").removesuffix("?"))
        raise ValueError(
            f"question is {_quoted(text)}; ask 'How many ... does ... have?' or 'What is ...?'"
        )

    def _expression(self, text: str) -> Expression:
        found = re.fullmatch(r"([0-9]+)(?: (plus|times) (.+))?", text)
        number = None if found is None else int(found[1])
        operation = None if found is None else cast(Any, found[2])
        if found is not None:
            if found[3] is None:
                return Expression(number)
            text = found[3]
        for start, combination in (
            ("the sum of ", "sum"),
            ("the difference between ", "difference"),
        ):
            if text.startswith(start):
                names = self._between_names.split(text.removeprefix(start))
                if len(names) < 2 or (combination == "difference" and len(names) > 2):
                    raise ValueError(
                        f"{_quoted(text)} combines {len(names)} quantities; a sum has two or "
                        "more, a difference two"
                    )
                references = tuple(self._name(name) for name in names)
                return Expression(number, operation, references, cast(Any, combination))
        return Expression(number, operation, (self._name(text),))

    def _name(self, text: str) -> Quantity:
        for kind, start in self._totals.items():
            if text.startswith(start):
                return Quantity(kind, self._place(text.removeprefix(start)), NO_ITEM)
        for kind, start in ((Kind.ITEM, "the number of "), (Kind.AVERAGE, self._average)):
            if text.startswith(start):
                names = _split_before_capital(text.removeprefix(start), " in ")
                if names is not None:
                    return Quantity(kind, self._place(names[1]), self._item(names[0]))
        raise ValueError(f"{_quoted(text)} is no quantity of this template; mend it")

    def _place(self, name: str) -> int:
        return self.places.setdefault(name, len(self.places))

    def _item(self, name: str) -> int:
        return self.items.setdefault(name, len(self.items))


def _split_before_capital(text: str, separator: str) -> tuple[str, str] | None:
    """Item and place: the parts around the first separator that a capital follows."""
    at = text.find(separator)
    while at >= 0:
        item, place = text[:at], text[at + len(separator) :]
        if item and place[:1].isupper():
            return item, place
        at = text.find(separator, at + 1)
    return None
