"""Conversations in plain English, drawn at random: what a user tells, small talk, and questions.

Words are in the TOML files beside this one. What is told may be corrected later; some of what is
asked was never told, though much of it sounds like what was. What a user says in small talk is
here as well; what is replied to it is for the model that is trained to write.
"""

from __future__ import annotations

import functools
import itertools
import random
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

Item = TypeVar("Item")
Role = Literal["user", "assistant"]
CORRECTED = 0.25
"""Share of what is told that is told anew, otherwise."""
WRAPPED = 0.3
"""Share of messages that say something around what they tell."""
PATTERNED = 0.6
"""Share of what is told that follows a pattern, which fits many things."""
CONFUSED = 0.5
"""Share of what was never told that has the values of something told: another's name."""
MOST_ASKED = 100
"""Things of a conversation: of some 600 so many are soon drawn without any two alike."""
KINDS = ("told", "corrected", "unknown", "noted")


Exchange = tuple[str, str]
"""What a user says in small talk, and what is replied."""


class Turn(NamedTuple):
    """What one side says."""

    role: Role
    text: str


class Question(NamedTuple):
    """A question about what was told, and its right answer.

    value: the words that a right answer has; "" where nothing was told. kind: one of `KINDS`; noted
    is no question, but something told, which is to be noted.
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
    with {v} for one of the values. topic: a conversation has one attribute of each."""

    tell: list[str]
    ask: list[str]
    answer: str
    values: list[str]
    topic: str


class Words(NamedTuple):
    """All that conversations are made of. patterns: attributes that are one sentence each about
    another thing, by the name of the pattern."""

    attributes: list[Attribute]
    patterns: dict[str, list[Attribute]]
    requests: list[str]
    noted: list[str]
    unknown: str
    correct: list[str]
    wrap: list[str]


@functools.cache
def read_words() -> Words:
    """The words of the TOML files."""
    lists = _fill_lists(_read("lists.toml"))
    attributes = [
        _make_attribute(lists, read, "", name) for name, read in _read("attributes.toml").items()
    ]
    patterns = {
        name: [_make_attribute(lists, read, about, name) for about in _list(lists, read["about"])]
        for name, read in _read("patterns.toml").items()
    }
    around = _read("around.toml")
    texts = (around["noted"], around["unknown"], around["correct"], around["wrap"])
    return Words(attributes, patterns, _read_requests(), *texts)


def draw_conversation(
    generator: random.Random,
    *,
    told: int,
    talk: Sequence[Exchange] = (),
    unknown: int = 2,
    noted: int = 0,
    repeats: int = 1,
) -> Conversation:
    """A conversation in which `told` things are told among small talk.

    talk: exchanges that come in any order. unknown: questions about things that were not told.
    noted: things that are told in place of a question. repeats: how often each thing is asked for,
    in other words where there are any. Raises ValueError for more than MOST_ASKED things.
    """
    words = read_words()
    if told + unknown + noted > MOST_ASKED:
        raise ValueError(
            f"told is {told} with {unknown} unknown and {noted} noted; use {MOST_ASKED} or fewer "
            "in all"
        )
    drawn = _draw_attributes(generator, words, told, told + noted, told + noted + unknown)
    held = [(each, _draw_value(generator, each)) for each in drawn[:told]]
    events: list[tuple[float, list[Turn]]] = []
    questions: list[Question] = []
    for group in _group(generator, held):
        said = [_write(generator.choice(each.tell), value) for each, value in group]
        at = generator.random()
        text = _wrap(generator, words, " ".join(said))
        events.append((at, _exchange(generator, words, text)))
        for attribute, first in group:
            value, kind = first, "told"
            if generator.random() < CORRECTED:
                value, kind = _draw_value(generator, attribute, unlike=first), "corrected"
                anew = _write(generator.choice(attribute.tell), value)
                text = generator.choice(words.correct).format(said=anew)
                events.append((generator.uniform(at, 1), _exchange(generator, words, text)))
            for asked in _sample(generator, attribute.ask, repeats):
                questions.append(Question(asked, _write(attribute.answer, value), value, kind))
    for attribute in drawn[told : told + noted]:
        said = _write(generator.choice(attribute.tell), _draw_value(generator, attribute))
        questions.append(Question(_wrap(generator, words, said), words.noted[0], "", "noted"))
    for attribute in drawn[told + noted :]:
        asked = generator.choice(attribute.ask)
        questions.append(Question(asked, words.unknown, "", "unknown"))
    for said, reply in talk:
        events.append((generator.random(), [Turn("user", said), Turn("assistant", reply)]))
    events.sort(key=lambda event: event[0])
    generator.shuffle(questions)
    return Conversation([turn for _, turns in events for turn in turns], questions)


def _draw_attributes(
    generator: random.Random, words: Words, told: int, plain: int, count: int
) -> list[Attribute]:
    """So many attributes, no two of them asked for alike. Of those from place `plain` on many have
    the values of one of the first `told`."""
    drawn: list[Attribute] = []
    while len(drawn) < count:
        found = generator.choice(words.attributes)
        if generator.random() < PATTERNED:
            found = generator.choice(words.patterns[generator.choice([*words.patterns])])
        if told and len(drawn) >= plain and generator.random() < CONFUSED:
            found = generator.choice(_find_confusable(words, generator.choice(drawn[:told])))
        if all(found.topic != each.topic for each in drawn):
            drawn.append(found)
    return drawn


def _find_confusable(words: Words, attribute: Attribute) -> list[Attribute]:
    """All attributes that have the same values, itself included."""
    every = itertools.chain(words.attributes, *words.patterns.values())
    return [each for each in every if each.values == attribute.values]


def _group(generator: random.Random, items: list[Item]) -> Iterator[list[Item]]:
    """What is told in one breath: one, two or three things."""
    start = 0
    while start < len(items):
        count = generator.choice((1, 1, 1, 2, 3))
        yield items[start : start + count]
        start += count


def _exchange(generator: random.Random, words: Words, said: str) -> list[Turn]:
    """What a user tells, and what is replied."""
    return [Turn("user", said), Turn("assistant", generator.choice(words.noted))]


def _wrap(generator: random.Random, words: Words, said: str) -> str:
    """What is told, at times with something around it."""
    if generator.random() >= WRAPPED:
        return said
    return generator.choice(words.wrap).format(said=said)


def _draw_value(generator: random.Random, attribute: Attribute, *, unlike: str = "") -> str:
    while (value := generator.choice(attribute.values)) == unlike:
        pass
    return value


def _write(text: str, value: str) -> str:
    """The sentence with its value, in good English as far as that is easy."""
    written = text.replace("{v}", value)
    written = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", written)
    return written[0].upper() + written[1:]


def _make_attribute(
    lists: dict[str, list[str]], read: dict[str, Any], about: str, name: str
) -> Attribute:
    """about: the thing that a pattern is applied to."""
    tell, ask = ([text.replace("{x}", about) for text in read[field]] for field in ("tell", "ask"))
    answer, values = read["answer"].replace("{x}", about), _list(lists, read["values"])
    is_told_apart = about and all("{x}" in text for text in read["ask"])
    topic = read.get("topic", f"{name}: {about}" if is_told_apart else name)
    return Attribute(tell, ask, answer, values, topic)


def _read_requests() -> list[str]:
    read = _read("requests.toml")
    patterns = [
        pattern["text"].format(x=about)
        for pattern in read["patterns"].values()
        for about in _list(read["lists"], pattern["about"])
    ]
    return [*read["lines"], *patterns]


def _list(lists: dict[str, list[str]], named: str | list[str]) -> list[str]:
    return lists[named] if isinstance(named, str) else named


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
        "days": [*lists["weekdays"] * 20, *days],
        "numbers": numbers,
        "codes": [str(code) for code in range(1013, 9999, 37)],
        "times": [f"{hour}:{minute:02}" for hour in range(5, 22) for minute in (0, 15, 30, 45)],
        "addresses": [
            f"{number} {street}" for street in lists["streets"] for number in range(2, 90)
        ],
    }
