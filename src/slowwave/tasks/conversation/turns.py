"""Draws conversations: who is spoken of, what is told, corrected and asked, and the replies.

A turn is a line of the user and the reply to it, which follows from what was said so far and from
nothing else. How turns are cut into windows is left to `task`.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from slowwave.tasks.conversation import ConversationConfig
from slowwave.tasks.conversation.phrases import (
    CORRECTED,
    CORRECTIONS,
    NOTED,
    OBJECTS,
    PEOPLE,
    RELATIONS,
    RELATIVES,
    REQUESTS,
    SMALL_TALK,
    THINGS,
    UNKNOWN,
    begin,
    write,
)
from slowwave.tasks.draws import (
    RandomStream,
    Words,
    belongs_to,
    counter,
    draw_words,
    keyed_hash,
    row_seeds,
)

_CARELESS = 0.1  # share of the user's lines without a capital at the start and a mark at the end
_PLAIN_CORRECTIONS = 0.25  # share of corrections that look like any other statement
_STRANGERS = 0.5  # share of never-told questions about people of whom nothing is told
_TRIES = 8

_CONSONANTS = "bdfgklmnprstvz"
_VOWELS = "aeiou"
_ENDINGS = ("", "", "", "l", "n", "r", "s")


class Key(NamedTuple):
    """What a fact is about: a subject, as the user names it, and one of RELATIONS."""

    subject: str
    relation: str


class Fact(NamedTuple):
    """A key and the value that was told."""

    key: Key
    value: str


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """line: what the user says, from "> " to the line break. reply: up to its line break.

    tells: the fact that the line tells. asks: the key it asks for, told or not. Both are None in
    small talk.
    """

    line: str
    reply: str
    tells: Fact | None = None
    asks: Key | None = None


class Script:
    """A conversation as it is drawn. `opening` is the first fact that it tells, `known` what was
    told up to the turn before the newest one."""

    def __init__(self, config: ConversationConfig, draws: RandomStream) -> None:
        self._config, self._draws = config, draws
        self._people = ["I"]
        self.known: dict[Key, str] = {}
        while len(self._people) <= config.people:
            self._people.append(self._draw_stranger())
        key = self._draw_key(draws.choose(self._people))
        self.opening = Fact(key, self._draw_value(key))

    def turns(self) -> Iterator[Turn]:
        """Turns without end; the first or second of them tells the opening fact."""
        if not self._draws.happens(self._config.told):
            yield self._chat()
        turn: Turn | None = self._say(self.opening)
        while True:
            # Without a key that suits, a turn is small talk.
            turn = turn or self._chat()
            yield turn
            if turn.tells is not None:
                self.known[turn.tells.key] = turn.tells.value
            turn = self._draw_turn()

    def ask_after(self, groups: Sequence[Sequence[Key]]) -> Turn | None:
        """A question about what was never told, or about any key of any group; None if none was
        found."""
        if self._draws.happens(self._config.untold):
            return self._ask_untold()
        return self._ask(self._draws.choose(self._draws.choose(groups)))

    def _draw_turn(self) -> Turn | None:
        config, draws = self._config, self._draws
        place = draws.below(2**32) / 2**32
        if place < config.told:
            key = self._draw_untold()
            return None if key is None else self._say(Fact(key, self._draw_value(key)))
        place -= config.told
        if place < config.corrected:
            return self._correct()
        place -= config.corrected
        if place < config.asked:
            if draws.happens(config.untold):
                return self._ask_untold()
            return self._ask(draws.choose([*self.known]))
        return None

    def _ask(self, key: Key) -> Turn:
        """A question and the reply to it; "never told" if it is not known."""
        relation = RELATIONS[key.relation]
        phrases = (*relation.ask, *(request.format(relation.unknown) for request in REQUESTS))
        line = self._write_line(write(self._draws.choose(phrases), key.subject))
        listener = _turn_round(key.subject)
        if key in self.known:
            reply = begin(write(relation.answer, listener, self.known[key]))
        else:
            reply = UNKNOWN.format(write(relation.unknown, listener))
        return Turn(line, f"{reply}\n", asks=key)

    def _ask_untold(self) -> Turn | None:
        """About somebody else, or about somebody of whom other things may be known."""
        if self._draws.happens(_STRANGERS):
            key = self._draw_key(self._draw_stranger())
        else:
            key = self._draw_untold()
        return None if key is None or key in self.known else self._ask(key)

    def _say(self, fact: Fact) -> Turn:
        phrase = self._draws.choose(RELATIONS[fact.key.relation].tell)
        line = self._write_line(write(phrase, fact.key.subject, fact.value))
        return Turn(line, f"{NOTED}\n", tells=fact)

    def _correct(self) -> Turn:
        """Tells another value of a known key."""
        draws = self._draws
        key = draws.choose([*self.known])
        value = self._draw_value(key)
        while value == self.known[key]:
            value = self._draw_value(key)
        fact = Fact(key, value)
        if draws.happens(_PLAIN_CORRECTIONS):
            return self._say(fact)
        relation = RELATIONS[key.relation]
        phrases = (
            *relation.correct,
            *(start + phrase for start in CORRECTIONS for phrase in relation.tell),
        )
        line = self._write_line(write(draws.choose(phrases), key.subject, value))
        return Turn(line, f"{CORRECTED}\n", tells=fact)

    def _chat(self) -> Turn:
        said, reply = self._draws.choose(SMALL_TALK)
        return Turn(self._write_line(said), f"{reply}\n")

    def _write_line(self, sentence: str) -> str:
        if self._draws.happens(_CARELESS):
            return f"> {sentence[:-1]}\n"
        return f"> {begin(sentence)}\n"

    def _draw_untold(self) -> Key | None:
        for _ in range(_TRIES):
            key = self._draw_key(self._draws.choose(self._people))
            if key not in self.known:
                return key
        return None

    def _draw_key(self, person: str) -> Key:
        """Of the person if the relation that is drawn is one of people."""
        relation = self._draws.choose(self._config.relations)
        match RELATIONS[relation].about:
            case "user":
                return Key("I", relation)
            case "person":
                return Key(person, relation)
            case "thing":
                return Key(self._draws.choose(THINGS), relation)
            case "object":
                return Key(self._draws.choose(OBJECTS), relation)

    def _draw_stranger(self) -> str:
        """Somebody of whom nothing is told."""
        while True:
            if self._draws.happens(self._config.invented):
                person = _invent_name(self._draws)
            elif self._draws.happens(len(RELATIVES) / (len(RELATIVES) + len(PEOPLE))):
                person = f"my {self._draws.choose(RELATIVES)}"
            else:
                person = self._draws.choose(PEOPLE)
            if person not in self._people:
                return person

    def _draw_value(self, key: Key) -> str:
        relation, draws = RELATIONS[key.relation], self._draws
        if relation.digits:
            lowest = 10 ** (relation.digits - 1)
            return str(lowest + draws.below(9 * lowest))
        if relation.invents and draws.happens(self._config.invented):
            return _invent_name(draws)
        return draws.choose(relation.values)


def draw_script(config: ConversationConfig, split: str, index: Words) -> Script:
    """The script of an example, drawn anew until its opening belongs to the split.

    index: (1,). So no two splits share how a conversation begins, and none shares a whole one.
    """
    seeds = row_seeds(index, config, split, "scripts")
    for attempt in itertools.count():
        seed = draw_words(seeds, counter(attempt))
        script = Script(config, RandomStream(int(seed[0])))
        if bool(belongs_to(split, hash_opening(script.opening))[0]):
            return script
    raise AssertionError


def hash_opening(opening: Fact) -> Words:
    """What decides the split of a conversation, (1,); how the fact is phrased plays no part."""
    return keyed_hash(np.zeros(1, dtype=np.uint64), "conversation", *opening.key, opening.value)


def _turn_round(subject: str) -> str:
    """The subject as the model names it to the user."""
    if subject == "I":
        return "you"
    return re.sub("^my ", "your ", subject)


def _invent_name(draws: RandomStream) -> str:
    """Two or three syllables that can be spoken, such as Tavolin."""
    syllables = [
        draws.choose(_CONSONANTS) + draws.choose(_VOWELS) for _ in range(2 + draws.is_heads())
    ]
    return "".join(syllables).capitalize() + draws.choose(_ENDINGS)
