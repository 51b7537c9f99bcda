"""Which messages of a request a memory knows already, for clients that send all of them again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from slowwave.generation.chat import Role
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
    known_lines = lines[len(lines) - _count_known(said, lines) :]
    remembered, new = list[Entry](), list[Message]()
    for message in messages[:-1]:
        if message.role == "system":
            found = next((each for each in system if _is_same(message, each)), None)
            if found is not None:
                system.remove(found)
        else:
            found = known_lines.pop(0) if known_lines else None
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
    is_same = is_lost and _is_same(messages[-1], turn.lines[-1])
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
    while stop and (len(lines) < num_lines or len(system) < num_system):
        start, count = max(0, stop - count), 2 * count
        for entry in reversed(read(start, stop)):
            if entry.role == "system":
                system.append(entry)
            elif entry.role is not None and _flatten(entry.said):  # replies may say nothing
                lines.append(entry)
        stop = start
    return lines[:num_lines][::-1], system[:num_system][::-1]


def _count_known(said: Sequence[Message], lines: Sequence[Entry]) -> int:
    """The most messages at the beginning of `said` that are the end of `lines`."""
    for count in range(min(len(said), len(lines)), 0, -1):
        if all(map(_is_same, said[:count], lines[-count:])):
            return count
    return 0


def _is_same(sent: Message, known: Entry) -> bool:
    if sent.role != known.role:
        return False
    text, said = _flatten(sent.text), _flatten(known.said)
    return text == said or (known.kind == "reply" and said.startswith(text))


def _flatten(text: str) -> str:
    """As it is said in one line."""
    return " ".join(text.splitlines()).strip()
