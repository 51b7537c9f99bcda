"""Finds the messages of a request that a memory has already; clients send all of them each time."""

from __future__ import annotations

import bisect
import collections
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from slowwave.memory.ledger import MODEL, TEMPLATE, USER, Entry
from slowwave.runtime.config import Role, flatten

FAR_BACK = 4096
"""Entries from the end of a ledger in which a system message is looked for."""
READ_AT_ONCE = 256
"""Entries of a ledger, from its end; then twice as many each time, since each read starts there."""


class Message(NamedTuple):
    """source: who said it, or what it is from; "" where the role alone says so."""

    role: Role
    text: str
    source: str = ""

    @property
    def teller(self) -> str:
        """Its source in the ledger."""
        return self.source or {"system": "system", "user": USER, "assistant": MODEL}[self.role]


class Recognised(NamedTuple):
    """remembered: entries of the ledger that messages repeat. new: the other messages."""

    remembered: list[Entry]
    new: list[Message]


def recognise(
    messages: Sequence[Message], num_entries: int, read: Callable[[int, int], list[Entry]]
) -> Recognised:
    """Divides a conversation into messages that the ledger ends with, and new ones.

    The former are the longest beginning of the conversation, which has no blank messages, that
    equals the end of the ledger; blank replies and entries read as plain text are skipped there. A
    reply may break off in the conversation, as for a client that hung up. System messages are
    compared by themselves: one is known if it is among the last so many of the ledger, and not far
    back. The last message is always new.

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


class LastTurn(NamedTuple):
    """The last turn of a memory, which may be taken again."""

    start: int
    """Its first place in the ledger."""
    lines: list[Entry]
    """The entries that were read in it, in order."""
    reply: Entry

    @classmethod
    def find(cls, start: int, entries: Sequence[Entry]) -> LastTurn | None:
        """Made of the ledger's entries from a place on; None without a message or a reply."""
        told = [entry for entry in entries if entry.kind == "told"]
        lines = [entry for entry in told if entry.source != TEMPLATE]
        replies = [entry for entry in entries if entry.kind == "reply"]
        return cls(start, lines, replies[-1]) if lines and replies else None


def repeats_chat(
    messages: Sequence[Message],
    turn: LastTurn,
    read: Callable[[int, int], list[Entry]],
    *,
    is_retry: bool,
    is_continued: bool,
) -> bool:
    """Whether a conversation takes the place of the last turn, and does not go on from it.

    Either the client repeats that turn because it has not got the reply; or it sends the
    conversation as it was before, with the same last message (for another reply) or an edited one.
    A message alone is new, even if its words are not, unless the reply to the same words was broken
    off. is_retry: the client says that it repeats a request. is_continued: the ledger ends with all
    messages but the last, so that the conversation may well go on.
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


def repeats_text(text: str, turn: LastTurn, *, is_retry: bool) -> bool:
    """Whether a text to be continued was read in the last turn, and the reply was lost."""
    is_lost = is_retry or turn.reply.finish is None
    return is_lost and [(line.role, line.given) for line in turn.lines] == [(None, text)]


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
    bits = collections.defaultdict[tuple[Role | None, str], int](int)
    for i, message in enumerate(said):
        bits[message.role, flatten(message.text)] |= 1 << i
    replies = _Prefixes({text: bits[role, text] for role, text in bits if role == "assistant"})
    ends = 0
    for line in lines:
        text = flatten(line.said)
        is_reply = line.kind == "reply"  # which may break off in the conversation
        equal = replies.find(text) if is_reply else bits.get((line.role, text), 0)
        ends = (ends << 1 | 1) & equal
    return ends.bit_length()


class _Prefixes:
    """Texts with bits; finds those that are prefixes of another text in few steps."""

    def __init__(self, texts: Mapping[str, int]) -> None:
        self._texts = sorted(texts)
        # Of each text: its bits together with those of its prefixes, and their number; the longest
        # of them, and one much shorter, so that the way from one to any other has few steps
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
        """The bits of all texts that are prefixes of `whole`."""
        index = bisect.bisect_right(self._texts, whole)
        text = self._texts[index - 1] if index else ""
        while not whole.startswith(text):
            far = self._far[text]
            text = self._next[text] if whole.startswith(far) else far
        return self._bits[text]
