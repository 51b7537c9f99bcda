"""Which messages of a request a memory knows already, for clients that send all of them again."""

from __future__ import annotations

import bisect
import collections
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from slowwave.memory.ledger import MODEL, USER, Entry
from slowwave.runtime.config import Role, flatten

SYSTEM = "system"

FAR_BACK = 4096
"""Entries from the end of a ledger in which a system message is looked for."""
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
    the last so many of the ledger, and not far back. The last message is always new.

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


class Told(NamedTuple):
    """The last turn of a memory, which can be taken anew."""

    start: int
    """Its first place in the ledger."""
    lines: list[Entry]
    """What was told in it, in order."""
    reply: Entry

    @classmethod
    def find(cls, start: int, entries: Sequence[Entry]) -> Told | None:
        """The turn that these entries from a place on are; None if nothing was replied to."""
        lines = [entry for entry in entries if entry.kind == "told"]
        replies = [entry for entry in entries if entry.kind == "reply"]
        return cls(start, lines, replies[-1]) if lines and replies else None


def repeats_chat(
    messages: Sequence[Message],
    turn: Told,
    read: Callable[[int, int], list[Entry]],
    *,
    is_retry: bool,
    is_continued: bool,
) -> bool:
    """Whether a conversation takes the place of the last turn, and does not go on from it.

    Its client repeats that turn, whose reply it has not got; or it sends the conversation as it was
    before, with a last message that is the same (another reply is wanted) or another (it was
    edited). A message alone is new, even if its words are not, unless the reply to the same words
    was broken off. is_retry: the client says that it repeats a request. is_continued: all messages
    but the last are the end of the ledger, so that it may well go on.
    """
    if not all(line.role for line in turn.lines):
        return False
    is_lost = is_retry or turn.reply.finish is None
    is_same = is_lost and _count_known(messages[-1:], turn.lines[-1:]) == 1
    said = [message for message in messages[:-1] if message.role != "system"]
    if not said or is_continued:
        return is_same
    told = [line for line in turn.lines[:-1] if line.role != "system"]
    before, _ = _read_back(turn.start, read, len(said), 0)
    return _count_known(said, [*before, *told]) == len(said)


def repeats_text(text: str, turn: Told, *, is_retry: bool) -> bool:
    """Whether a text to be gone on with was told in the last turn, and the reply was lost."""
    is_lost = is_retry or turn.reply.finish is None
    return is_lost and [(line.role, line.text) for line in turn.lines] == [(None, text)]


def _read_back(
    num_entries: int, read: Callable[[int, int], list[Entry]], num_lines: int, num_system: int
) -> tuple[list[Entry], list[Entry]]:
    """The last lines of a conversation, and the last system messages, each oldest first."""
    lines, system = list[Entry](), list[Entry]()
    stop, count = num_entries, READ_AT_ONCE
    while stop:
        is_far = len(system) >= num_system or num_entries - stop >= FAR_BACK
        if len(lines) >= num_lines and is_far:
            break
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
