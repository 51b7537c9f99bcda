"""Which messages of a request a memory knows already, for clients that send all of them again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from slowwave.generation.chat import ChatFormat
from slowwave.memory.ledger import Entry
from slowwave.memory.session import MODEL, USER

Role = Literal["system", "user", "assistant"]
SYSTEM = "system"

READ_AT_ONCE = 256
"""Entries of a ledger, from its end; then twice as many each time, for each walks all the way."""


class Message(NamedTuple):
    """Something that was said. source: who said it or what it is from; by the role if ""."""

    role: Role
    text: str
    source: str = ""

    def write(self, chat: ChatFormat) -> str:
        """The line that is read for it; raises ValueError if it is empty."""
        match self.role:
            case "system":
                return chat.format_system(self.text)
            case "user":
                return chat.format_user(self.text)
            case "assistant":
                return chat.format_reply(self.text)

    @property
    def teller(self) -> str:
        """Its source in the ledger."""
        return self.source or {"system": SYSTEM, "user": USER, "assistant": MODEL}[self.role]


class Recognised(NamedTuple):
    """remembered: entries of the ledger that messages repeat. new: the other messages."""

    remembered: list[Entry]
    new: list[Message]


def recognise(
    messages: Sequence[Message],
    chat: ChatFormat,
    num_entries: int,
    read: Callable[[int, int], list[Entry]],
) -> Recognised:
    """Leaves out of a conversation what a memory was told or replied last.

    That is the longest beginning of the conversation that equals the end of the ledger, line by
    line, without what was read as plain text. A reply may break off, as for a client that hung up.
    System messages count by themselves: one is known if it is among the last so many of the ledger.
    The last message is always new. read(start, stop): entries of the ledger at these places.
    """
    said = [message for message in messages[:-1] if message.role != "system"]
    wanted = len(messages) - 1 - len(said)
    lines, system = _read_back(num_entries, read, chat, len(said), wanted)
    count = _count_known(said, lines, chat)
    known_lines = lines[len(lines) - count :]
    remembered, new = list[Entry](), list[Message]()
    for message in messages[:-1]:
        if message.role == "system":
            found = next((each for each in system if each.text == message.write(chat)), None)
            if found is not None:
                system.remove(found)
        else:
            found = known_lines.pop(0) if known_lines else None
        if found is None:
            new.append(message)
        else:
            remembered.append(found)
    return Recognised(remembered, [*new, messages[-1]])


def find_role(entry: Entry, chat: ChatFormat) -> Role | None:
    """Who said an entry; None if it is a sleep or was read as plain text."""
    if entry.kind == "reply":
        return "assistant"
    body = entry.text.removesuffix(chat.end)
    is_line = body != entry.text and len(body.splitlines()) <= 1
    if entry.kind == "sleep" or not is_line:
        return None
    if entry.source == MODEL:
        return "assistant"  # whatever it begins with
    if entry.text.startswith(chat.user_mark):
        return "user"
    return "system" if entry.text.startswith(chat.system_mark) else None


def read_line(entry: Entry, chat: ChatFormat) -> str:
    """What was said in an entry, without the mark and the end of its line."""
    role = find_role(entry, chat)
    if role is None:
        return entry.text
    mark = {"user": chat.user_mark, "system": chat.system_mark, "assistant": ""}[role]
    return entry.text.removeprefix(mark).removesuffix(chat.end)


def _read_back(
    num_entries: int,
    read: Callable[[int, int], list[Entry]],
    chat: ChatFormat,
    num_lines: int,
    num_system: int,
) -> tuple[list[Entry], list[Entry]]:
    """The last lines of a conversation, and the last system messages, each oldest first."""
    lines, system = list[Entry](), list[Entry]()
    stop, count = num_entries, READ_AT_ONCE
    while stop and (len(lines) < num_lines or len(system) < num_system):
        start, count = max(0, stop - count), 2 * count
        for entry in reversed(read(start, stop)):
            role = find_role(entry, chat)
            if role == "system":
                system.append(entry)
            elif role is not None and _flatten(entry.text):  # replies may say nothing
                lines.append(entry)
        stop = start
    return lines[:num_lines][::-1], system[:num_system][::-1]


class _Line(NamedTuple):
    role: Role | None
    text: str
    may_go_on: bool
    """A reply, of which its client may have had the beginning alone."""


def _count_known(said: Sequence[Message], lines: Sequence[Entry], chat: ChatFormat) -> int:
    """The most messages at the beginning of `said` that are the end of `lines`."""
    sent = [_read_message(message, chat) for message in said]
    known = [_read_entry(entry, chat) for entry in lines]
    for count in range(min(len(sent), len(known)), 0, -1):
        if all(map(_is_same, sent[:count], known[-count:])):
            return count
    return 0


def _read_message(message: Message, chat: ChatFormat) -> _Line:
    text = message.write(chat) if message.role == "user" else _flatten(message.text)
    return _Line(message.role, text, may_go_on=False)


def _read_entry(entry: Entry, chat: ChatFormat) -> _Line:
    role = find_role(entry, chat)
    text = entry.text if role == "user" else _flatten(entry.text)
    return _Line(role, text, may_go_on=entry.kind == "reply")


def _is_same(sent: _Line, known: _Line) -> bool:
    if sent.role != known.role:
        return False
    is_beginning = known.may_go_on and bool(sent.text) and known.text.startswith(sent.text)
    return sent.text == known.text or is_beginning


def _flatten(text: str) -> str:
    return " ".join(text.splitlines()).strip()
