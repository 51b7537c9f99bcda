"""A reader of GSM-Infinite problems that shares no code with the package: text or tokens are made
into one Python expression, which is evaluated; the unknown is found by trying every number."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import NamedTuple

# What the themes call: a total, a grand total, an average.
CALLED = {
    "zoo": (
        "total number of adult animals",
        "total number of newborn animal children",
        "average number of newborn children",
    ),
    "school": (
        "total number of schools",
        "total number of teachers from all schools",
        "average number of teachers",
    ),
    "movies": (
        "total number of movies",
        "total number of movie nominations",
        "average number of nominations",
    ),
}

Name = tuple[str, str, str]  # "item", "average", "total" or "grand"; the item or ""; the place


class Equation(NamedTuple):
    """subject = number operation sign(names); number None and names empty: it only exists."""

    subject: Name
    number: int | None
    operation: str
    sign: str
    names: tuple[Name, ...]


class Parsed(NamedTuple):
    equations: list[Equation]
    question: Name


class Answer(NamedTuple):
    """values: of all quantities that the answer needs."""

    value: int
    operations: int
    values: dict[Name, int]

    @property
    def needed(self) -> set[Name]:
        return set(self.values)


def parse_text(statements: Iterable[str], question: str) -> Parsed:
    """Sentences in the public generator's grammar; the words tell the theme."""
    return Parsed([_sentence(text) for text in statements], _question(question))


def parse_words(tokens: list[str], question: list[str]) -> Parsed:
    """Tokens of the words grammar, the question apart."""
    text = re.sub(r"(?<=\d) (?=\d)", "", " ".join(tokens)).replace(" ,", ",")
    assert text.endswith(" .")
    asked = " ".join(question).replace(" ?", "?")
    statements = [f"{sentence}." for sentence in text.removesuffix(" .").split(" . ")]
    return parse_text(statements, asked)


def parse_compact(tokens: list[str], question: list[str]) -> Parsed:
    """Tokens of the compact grammar, the question apart."""
    parts = [
        list(part) for is_end, part in itertools.groupby(tokens, "..".startswith) if not is_end
    ]
    equations: list[Equation] = []
    for part in parts:
        at = part.index("exists") if "exists" in part else part.index("=")
        (subject,) = _compact_names(part[:at])
        rest = part[at + 1 :]
        number = "".join(itertools.takewhile(str.isdigit, rest))
        rest = rest[len(number) :]
        operation = rest.pop(0) if rest[:1] in (["plus"], ["times"]) else ""
        sign = rest.pop(0) if rest[:1] in (["sum"], ["difference"]) else ""
        names = tuple(_compact_names(rest))
        equations.append(Equation(subject, int(number) if number else None, operation, sign, names))
    assert question[-1] == "?"
    (asked,) = _compact_names(question[:-1])
    return Parsed(equations, asked)


def answer(parsed: Parsed) -> Answer:
    """Follows the question; asserts that to a reverse one there is one answer in 1..1000."""
    unknown = {e.subject for e in parsed.equations if e.number is None and not e.names}
    x, given, root = None, None, parsed.question
    if unknown:
        (x,) = unknown
        assert parsed.question == x
        (given,) = filter(lambda e: _is_given(parsed, e), parsed.equations)
        root = given.subject
    expression, needed = _expand(parsed, root, x, given)
    found = 0
    if given is not None:
        code = compile(f"{expression} == {given.number}", "problem", "eval")
        (found,) = [value for value in range(1, 1001) if eval(code, {"x": value})]
    values = {name: eval(_expand(parsed, name, x, given)[0], {"x": found}) for name in needed}
    return Answer(values[parsed.question], _count(parsed, needed, x, given), values)


def _is_given(parsed: Parsed, equation: Equation) -> bool:
    """Whether a number is stated of what follows from the unknown."""
    if equation.number is None or equation.names:
        return False
    is_total = equation.subject[0] in ("total", "grand")
    return is_total or sum(e.subject == equation.subject for e in parsed.equations) > 1


def without(parsed: Parsed, dropped: set[Name]) -> Parsed:
    """The problem without the statements about some quantities."""
    return Parsed([e for e in parsed.equations if e.subject not in dropped], parsed.question)


def _expand(
    parsed: Parsed, root: Name, unknown: Name | None, given: Equation | None
) -> tuple[str, set[Name]]:
    needed: set[Name] = set()

    def expand(name: Name, above: tuple[Name, ...]) -> str:
        assert name not in above, "it depends on itself"
        needed.add(name)
        kind, _, place = name
        above = (*above, name)
        if kind in ("total", "grand"):
            terms: list[str] = []
            for item in _items(parsed, place):
                term = expand(("item", item, place), above)
                if kind == "grand":
                    term += "*" + expand(("average", item, place), above)
                terms.append(term)
            return f"({'+'.join(terms) or '0'})"
        if name == unknown:
            return "x"
        found = [e for e in parsed.equations if e.subject == name and e is not given]
        if not found:
            return "0"
        (equation,) = found
        names = [expand(other, above) for other in equation.names]
        inner = f"({('-' if equation.sign == 'difference' else '+').join(names)})"
        if not names:
            return str(equation.number)
        if equation.number is None:
            return inner
        return f"({equation.number}{'+' if equation.operation == 'plus' else '*'}{inner})"

    return expand(root, ()), needed


def _count(parsed: Parsed, needed: set[Name], unknown: Name | None, given: Equation | None) -> int:
    count = 0
    for name in needed:
        if name[0] in ("total", "grand"):
            count += len(_items(parsed, name[2])) * (2 if name[0] == "grand" else 1)
        elif name == unknown:
            count += 1
        else:
            for equation in parsed.equations:
                if equation.subject == name and equation is not given:
                    count += len(equation.names) + (equation.number is not None)
    return count


def _items(parsed: Parsed, place: str) -> list[str]:
    subjects = [e.subject for e in parsed.equations]
    return sorted({item for kind, item, at in subjects if kind == "item" and at == place})


def _sentence(text: str) -> Equation:
    assert text[0] in "Tt" and text[-1] == "."
    text = "t" + text[1:-1]
    for ending in (" exists, and its number is greater than 0", " is greater than 0"):
        if text.endswith(ending):
            name = _name(text.removesuffix(ending))
            assert (name[0] == "item") == ending.startswith(" exists")
            return Equation(name, None, "", "", ())
    subject, expression = text.split(" equals ")
    number, operation = None, ""
    if found := re.match(r"(\d+)( plus | times |$)", expression):
        number, operation = int(found[1]), found[2].strip()
        expression = expression[found.end() :]
    sign = ""
    for words in ("the sum of ", "the difference between "):
        if expression.startswith(words):
            sign = words.split()[1]
            expression = expression.removeprefix(words)
    names = re.split(r", and (?=the )|, (?=the )| and (?=the )", expression) if expression else []
    assert (len(names) > 1) == bool(sign)
    assert sign != "difference" or len(names) == 2
    assert len(names) < 3 or ", and the " in text
    return Equation(_name(subject), number, operation, sign, tuple(map(_name, names)))


def _question(text: str) -> Name:
    if found := re.fullmatch(r"[Hh]ow many (.+) does (.+) have\?", text):
        return ("item", found[1], found[2])
    found = re.fullmatch(r"[Ww]hat is (.+)\?", text)
    assert found
    return _name(found[1])


def _name(text: str) -> Name:
    before, place = text.split(" in ")
    if before.startswith("the number of "):
        return ("item", before.removeprefix("the number of "), place)
    for total, grand, average in CALLED.values():
        if before == f"the {total}":
            return ("total", "", place)
        if before == f"the {grand}":
            return ("grand", "", place)
        if before.startswith(f"the {average} per "):
            return ("average", before.removeprefix(f"the {average} per "), place)
    raise AssertionError(text)


def _compact_names(tokens: list[str]) -> list[Name]:
    names: list[Name] = []
    pending = list(tokens)
    while pending:
        first = pending.pop(0)
        if first in ("total", "grand total"):
            names.append(("grand" if first == "grand total" else "total", "", pending.pop(0)))
        elif first == "average":
            names.append(("average", pending.pop(0), pending.pop(0)))
        else:
            names.append(("item", first, pending.pop(0)))
    assert all(place[0].isupper() for _, _, place in names)
    return names
