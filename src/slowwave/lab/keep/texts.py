"""Texts that are read and asked about: facts among filler, and chats of strangers.

Words are in the TOML files beside this one.
"""

from __future__ import annotations

import functools
import random
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

Test = Literal["facts", "strangers", "continuation"]
Exchange = tuple[str, str]
"""What a user says, and what is replied."""


class Fact(NamedTuple):
    """A sentence that begins so, and its end, which a reader remembers or not."""

    begin: str
    end: str


class Question(NamedTuple):
    """A question about what was told.

    right, outdated: regular expressions of words that an answer has if it is right, or was right
    before; "" where nothing was told. kind: told, corrected or unknown.
    """

    text: str
    right: str
    outdated: str
    kind: str


class Person(NamedTuple):
    """A stranger: what is told, in order, and what is asked."""

    told: list[str]
    questions: list[Question]


class Talk(NamedTuple):
    """Chats are made of these."""

    people: list[Person]
    small_talk: list[Exchange]
    replies: list[str]


@functools.cache
def read_talk() -> Talk:
    """The words of strangers.toml."""
    read = _read("strangers.toml")
    small_talk = [(said, replied) for said, replied in read["small_talk"]]
    return Talk([_make_person(each) for each in read["people"]], small_talk, read["replies"])


def write_facts(seed: int, *, facts: int = 12, fillers: int = 10) -> tuple[str, list[Fact]]:
    """A text of facts among filler, and its facts."""
    words, draw = _read("facts.toml"), random.Random(seed)
    names = draw.sample(words["names"], facts)
    told = [
        Fact(begin.format(name), " " + draw.choice(ends))
        for name, (begin, ends) in zip(
            names, draw.sample([*words["facts"].items()], facts), strict=True
        )
    ]
    leads, tails = words["leads"], words["tails"]
    lines = [draw.choice(leads) + each.begin + each.end + draw.choice(tails) for each in told]
    chosen = draw.sample(words["fillers"], fillers)
    lines += [each[:-1] + draw.choice(words["filler_tails"]) for each in chosen]
    draw.shuffle(lines)
    return " ".join(lines), told


def write_chat(person: int, *, spacing: float) -> Iterator[Exchange]:
    """Exchanges for ever; one in `spacing` is of what a person tells, until all is told."""
    talk, draw, number = read_talk(), random.Random(person), 0
    told = talk.people[person].told
    num_told = 0
    while True:
        for exchange in draw.sample(talk.small_talk, len(talk.small_talk)):
            if num_told < len(told) and number >= num_told * spacing:
                yield told[num_told], draw.choice(talk.replies)
                num_told += 1
                number += 1
            yield exchange
            number += 1


def _make_person(read: dict[str, Any]) -> Person:
    """What was corrected is told in the first half, and otherwise in the second."""
    told = [text for text, _, _ in read["told"]]
    half = len(told) // 2
    first, then = ([each[place] for each in read["corrected"]] for place in (0, 1))
    questions = [Question(asked, right, "", "told") for _, asked, right in read["told"]]
    questions += [
        Question(asked, right, outdated, "corrected")
        for _, _, asked, right, outdated in read["corrected"]
    ]
    questions += [Question(asked, "", "", "unknown") for asked in read["unknown"]]
    return Person(_join(told[:half], first) + _join(told[half:], then), questions)


def _join(told: Sequence[str], others: Sequence[str]) -> list[str]:
    """The others among what is told, evenly."""
    gap = len(told) / (len(others) or 1)
    placed = [(place, text) for place, text in enumerate(told)]
    placed += [(gap * number + gap / 2, text) for number, text in enumerate(others)]
    return [text for _, text in sorted(placed)]


@functools.cache
def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name(name).read_text("utf-8"))
