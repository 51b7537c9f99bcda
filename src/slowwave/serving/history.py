"""Which messages of a request a memory knows already, for clients that send all of them again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from slowwave.generation.chat import Role
from slowwave.memory.ledger import MODEL, Entry
from slowwave.memory.session import USER

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
