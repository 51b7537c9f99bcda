"""Which messages of a request a memory knows already, for clients that send all of them again."""

from __future__ import annotations

import bisect
import collections
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from slowwave.generation.chat import Role, flatten
from slowwave.memory.ledger import MODEL, USER, Entry

SYSTEM = "system"

READ_AT_ONCE = 256
"""Entries of a ledger, from its end; then twice as many each time, for each walks all the way."""


class Message(NamedTuple):
    """Something that was said. source: who said it or what it is from; by the role if ""."""

    role: Role
    text: str
    source: str = ""

    @property
    def teller(self) -> str:
        """Its source in the ledger."""
        return self.source or {"system": SYSTEM, "user": USER, "assistant": MODEL}[self.role]


class Recognised(NamedTuple):
    """remembered: entries of the ledger that messages repeat. new: the other messages."""

    remembered: list[Entry]
    new: list[Message]


def recognise(
    messages: Sequence[Message], num_entries: int, read: Callable[[int, int], list[Entry]]
) -> Recognised:
    """Leaves out of a conversation what a memory was told or replied last.

    That is the longest beginning of the conversation, which has no blank messages, that equals the
    end of the ledger, without blank replies and what was read as plain text. A reply may break off,
    as for a client that hung up. System messages count by themselves: one is known if it is among
    the last so many of the ledger. The last message is always new.

    read(start, stop): entries of the ledger at these places.
    """
    said = [message for message in messages[:-1] if message.role != "system"]
    wanted = sum(message.role == "system" for message in messages[:-1])
    lines, system = _read_back(num_entries, read, len(said), wanted)
    known_lines = iter(lines[len(lines) - _count_known(said, lines) :])
    known_system = collections.defaultdict[str, collections.deque[Entry]](collections.deque)
    for entry in system:
        known_system[flatten(entry.said)].append(entry)
    remembered, new = list[Entry](), list[Message]()
    for message in messages[:-1]:
        if message.role == "system":
            alike = known_system[flatten(message.text)]
            found = alike.popleft() if alike else None
        else:
            found = next(known_lines, None)
        if found is None:
            new.append(message)
        else:
            remembered.append(found)
    return Recognised(remembered, [*new, messages[-1]])


def _read_back(
    num_entries: int, read: Callable[[int, int], list[Entry]], num_lines: int, num_system: int
) -> tuple[list[Entry], list[Entry]]:
    """The last lines of a conversation, and the last system messages, each oldest first."""
    lines, system = list[Entry](), list[Entry]()
    stop, count = num_entries, READ_AT_ONCE
    while stop and (len(lines) < num_lines or len(system) < num_system):
        start, count = max(0, stop - count), 2 * count
        for entry in reversed(read(start, stop)):
            if entry.role == "system":
                system.append(entry)
            elif entry.role is not None and flatten(entry.said):  # replies may say nothing
                lines.append(entry)
        stop = start
    return lines[:num_lines][::-1], system[:num_system][::-1]


def _count_known(said: Sequence[Message], lines: Sequence[Entry]) -> int:
    """The most messages at the beginning of `said` that are the end of `lines`.

    All beginnings are followed at once (Baeza-Yates and Gonnet, "A new approach to text searching",
    1992): bit i stands for messages 0..i, which the lines up to here end with.
    """
    places, ends = _Places(said), 0
    for line in lines:
        ends = (ends << 1 | 1) & places.find(line)
    return ends.bit_length()


class _Places:
    """Where in a conversation a line of the ledger stands, as the bits of a number."""

    def __init__(self, said: Sequence[Message]) -> None:
        self._places = collections.defaultdict[tuple[Role, str], int](int)
        for place, message in enumerate(said):
            self._places[message.role, flatten(message.text)] |= 1 << place
        self._replies = _Beginnings(
            {text: bits for (role, text), bits in self._places.items() if role == "assistant"}
        )

    def find(self, line: Entry) -> int:
        """The messages that are this line, or the beginning of this reply."""
        said = flatten(line.said)
        if line.kind == "reply":
            return self._replies.find(said)
        assert line.role is not None
        return self._places.get((line.role, said), 0)


class _Beginnings:
    """Texts with bits, of which those that a longer text begins with are found in few steps."""

    def __init__(self, texts: Mapping[str, int]) -> None:
        self._texts = sorted(texts)
        # Of each text: its bits with those of all texts that it begins with, and how many they are;
        # the longest of them, and one further on, so that a way through all of them is short
        # (Myers, "An applicative random-access stack", 1983).
        self._bits, self._depth, self._next, self._far = {"": 0}, {"": 0}, {"": ""}, {"": ""}
        chain = [""]
        for text in self._texts:
            while not text.startswith(chain[-1]):
                chain.pop()
            longest = chain[-1]
            far = self._far[longest]
            here, there, beyond = (self._depth[each] for each in (longest, far, self._far[far]))
            self._bits[text] = self._bits[longest] | texts[text]
            self._depth[text], self._next[text] = here + 1, longest
            self._far[text] = self._far[far] if here - there == there - beyond else longest
            chain.append(text)

    def find(self, whole: str) -> int:
        """The bits of all texts that `whole` begins with."""
        place = bisect.bisect_right(self._texts, whole)
        text = self._texts[place - 1] if place else ""
        while not whole.startswith(text):
            far = self._far[text]
            text = self._next[text] if whole.startswith(far) else far
        return self._bits[text]
