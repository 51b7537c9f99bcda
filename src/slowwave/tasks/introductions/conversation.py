"""Conversations in plain English, drawn at random: what a user tells, small talk, and questions.

Words are in the TOML files beside this one. What is told may be corrected later; some of what is
asked was never told.
"""

from __future__ import annotations

import functools
import random
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, cast

Item = TypeVar("Item")
Role = Literal["user", "assistant"]
CORRECTED = 0.15
"""Share of what is told that is told anew, otherwise."""
KINDS = ("told", "corrected", "unknown")


class Turn(NamedTuple):
    """What one side says."""

    role: Role
    text: str


class Question(NamedTuple):
    """A question about what was told, and its right answer.

    value: the words that a right answer has; "" where nothing was told. kind: one of `KINDS`.
    """

    text: str
    answer: str
    value: str
    kind: str


class Conversation(NamedTuple):
    """Turns in order, and what can be asked after them."""

    turns: list[Turn]
    questions: list[Question]


class Attribute(NamedTuple):
    """Something that people tell of themselves: ways to tell it and to ask for it, and the answer,
    with {v} for one of the values."""

    tell: list[str]
    ask: list[str]
    answer: str
    values: list[str]


class Words(NamedTuple):
    """All that conversations are made of."""

    attributes: dict[str, Attribute]
    talk: list[tuple[str, str]]
    noted: list[str]
    unknown: str
    correct: list[str]


@functools.cache
def read_words() -> Words:
    """The words of the TOML files."""
    lists = _fill_lists(_read("lists.toml"))
    attributes: dict[str, Attribute] = {}
    for name, read in _read("attributes.toml").items():
        values = read["values"]
        listed = lists[values] if isinstance(values, str) else values
        attributes[name] = Attribute(read["tell"], read["ask"], read["answer"], listed)
    others = _read("small_talk.toml")
    talk = [cast(tuple[str, str], tuple(pair)) for pair in others["talk"]]
    return Words(attributes, talk, others["noted"], others["unknown"], others["correct"])


def draw_conversation(
    generator: random.Random, *, told: int, talk: int, unknown: int = 2, repeats: int = 1
) -> Conversation:
    """A conversation in which `told` things are told, among `talk` exchanges of small talk.

    unknown: questions about things that were not told. repeats: how often each thing is asked for,
    in other words where there are any.
    """
    words = read_words()
    if told + unknown > len(words.attributes):
        raise ValueError(
            f"told is {told} with {unknown} unknown; there are {len(words.attributes)} things that "
            "are spoken of, use fewer"
        )
    names = generator.sample([*words.attributes], told + unknown)
    held = {name: _draw_value(generator, words, name) for name in names[:told]}
    events: list[tuple[float, list[Turn]]] = []
    questions: list[Question] = []
    for group in _group(generator, names[:told]):
        said = [generator.choice(words.attributes[name].tell) for name in group]
        text = " ".join(tell.format(v=held[name]) for tell, name in zip(said, group, strict=True))
        at = generator.random()
        events.append((at, _exchange(generator, words, text)))
        for name in group:
            value, kind = held[name], "told"
            if generator.random() < CORRECTED:
                value, kind = _draw_value(generator, words, name, unlike=value), "corrected"
                anew = generator.choice(words.attributes[name].tell).format(v=value)
                text = generator.choice(words.correct).format(said=anew)
                events.append((generator.uniform(at, 1), _exchange(generator, words, text)))
            for asked in _sample(generator, words.attributes[name].ask, repeats):
                answer = words.attributes[name].answer.format(v=value)
                questions.append(Question(asked, answer, value, kind))
    for name in names[told:]:
        asked = generator.choice(words.attributes[name].ask)
        questions.append(Question(asked, words.unknown, "", "unknown"))
    for question, reply in _sample(generator, words.talk, talk):
        turns = [Turn("user", question), Turn("assistant", reply)]
        events.append((generator.random(), turns))
    events.sort(key=lambda event: event[0])
    generator.shuffle(questions)
    return Conversation([turn for _, turns in events for turn in turns], questions)


def _group(generator: random.Random, names: list[str]) -> Iterator[list[str]]:
    """Things that are told in one breath: one, two or three."""
    start = 0
    while start < len(names):
        count = generator.choice((1, 1, 1, 2, 3))
        yield names[start : start + count]
        start += count


def _exchange(generator: random.Random, words: Words, said: str) -> list[Turn]:
    """What a user tells, and what is replied."""
    return [Turn("user", said), Turn("assistant", generator.choice(words.noted))]


def _draw_value(generator: random.Random, words: Words, name: str, *, unlike: str = "") -> str:
    values = words.attributes[name].values
    while (value := generator.choice(values)) == unlike:
        pass
    return value


def _sample(generator: random.Random, items: list[Item], count: int) -> list[Item]:
    """So many items, each as often as any other."""
    drawn: list[Item] = []
    while len(drawn) < count:
        drawn += generator.sample(items, min(len(items), count - len(drawn)))
    return drawn


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name(name).read_text("utf-8"))


def _fill_lists(lists: dict[str, list[str]]) -> dict[str, list[str]]:
    """The lists, and those that are made of numbers."""
    days = [f"{month} {day}" for month in lists["months"] for day in range(1, 29)]
    numbers = [str(number) for number in range(2, 100)]
    return {
        **lists,
        "ages": [str(age) for age in range(18, 90)],
        "dates": days,
        "numbers": numbers,
        "codes": [str(code) for code in range(1013, 9999, 37)],
        "times": [f"{hour}:{minute:02}" for hour in range(5, 22) for minute in (0, 15, 30, 45)],
        "addresses": [
            f"{number} {street}" for street in lists["streets"] for number in range(2, 90)
        ],
    }
