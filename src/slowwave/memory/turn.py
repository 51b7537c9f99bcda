"""A turn: what is told, the events of its steps, the reply while it comes, and what it leaves."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, TypedDict, TypeVar

from slowwave.memory.ledger import MODEL, TEMPLATE, USER, Entry
from slowwave.memory.sleep_report import SleepReport
from slowwave.runtime.chat import Chat
from slowwave.runtime.config import ChatFormat, Role, Sampling
from slowwave.runtime.model_folder import TalkingModel
from slowwave.runtime.reply import ReplyText
from slowwave.sleep.config import SleepConfig
from slowwave.state import Counters
from slowwave.storage.tokenizer import Tokenizer

Result = TypeVar("Result")
RECENT = 64
"""Entries of plain text in which an open line is looked for."""


class ReplyOptions(TypedDict, total=False):
    """What `Session.stream` takes beside a prompt."""

    source: str
    max_new_tokens: int
    stop: str | Sequence[str]
    sampling: Sampling | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    seed: int | None


class Progress(NamedTuple):
    """A step that was done, and what comes next."""

    next: Literal["read", "sleep", "draw", "record"]
    """Read up to a window, sleep one pass, draw and read a token, or end the turn: that is the last
    step, and waits for the disk where the session is kept on one."""
    text: str = ""
    """What the step added to the reply."""
    num_drawn: int = 0
    """Tokens that the step added to the reply."""
    finish: Literal["stop", "length"] | None = None
    """With the last text: why the reply ends."""


Event = Progress | SleepReport
"""A step that was done, or a sleep that has ended in it."""
Steps = Generator[Event, None, Result]
"""Work that is done as its next event is asked for; closing it ends it where it is."""


def finish(steps: Steps[Result], on_sleep: Callable[[SleepReport], object] | None = None) -> Result:
    """Takes all steps at once. on_sleep sees every sleep; what it raises ends the work there."""
    with contextlib.closing(steps):
        while True:
            try:
                event = next(steps)
            except StopIteration as done:
                return done.value
            if on_sleep is not None and isinstance(event, SleepReport):
                on_sleep(event)


def time_steps(steps: Steps[Result]) -> Steps[tuple[Result, float]]:
    """The same steps, and the seconds that they took, without those between them."""
    seconds = 0.0
    while True:
        began = time.perf_counter()
        try:
            event = next(steps)
        except StopIteration as done:
            return done.value, seconds + time.perf_counter() - began
        seconds += time.perf_counter() - began
        yield event


class TooLong(ValueError):
    """A text has more tokens than may be told."""


def tell(tokenizer: Tokenizer, text: str, source: str = USER) -> Entry:
    """What a text will be in the ledger once it is read; raises ValueError if it is empty."""
    return finish(tell_by_step(tokenizer, text, source))


def say(tokenizer: Tokenizer, chat: Chat, role: Role, text: str, source: str) -> Entry:
    """As `tell`, of a line of a chat; raises ValueError if the text is blank."""
    return finish(say_by_step(tokenizer, chat, role, text, source))


def ask(talker: TalkingModel, prompt: str, source: str) -> Entry:
    """A prompt as the model takes it: a message of the user in a chat, or a text as it is."""
    if talker.chat is None:
        return tell(talker.tokenizer, prompt, source)
    return say(talker.tokenizer, talker.chat, "user", prompt, source)


def tell_by_step(
    tokenizer: Tokenizer, text: str, source: str = USER, *, most: int | None = None
) -> Steps[Entry]:
    """As `tell`, in steps of bounded work; raises TooLong at more than `most` tokens."""
    tokens = yield from _join(tokenizer.encode_in_pieces(text), most)
    if not tokens:
        raise ValueError("the text is empty; give some text to read")
    if not tokenizer.losses:
        return _enter(tokens, source, text)
    told = _enter(tokens, source, tokenizer.decode(tokens))
    return told if told.text == text else dataclasses.replace(told, said=text)


def say_by_step(
    tokenizer: Tokenizer,
    chat: Chat,
    role: Role,
    text: str,
    source: str,
    *,
    most: int | None = None,
) -> Steps[Entry]:
    """As `say`, in steps as `tell_by_step`."""
    tokens = yield from _join(chat.encode(tokenizer, role, text), most)
    told = _enter(tokens, source, tokenizer.decode(tokens))
    return dataclasses.replace(told, role=role, said=text)


def _join(pieces: Iterable[list[int]], most: int | None) -> Steps[list[int]]:
    tokens = list[int]()
    for piece in pieces:
        if tokens:
            yield Progress("read")
        tokens += piece
        if most is not None and len(tokens) > most:
            raise TooLong(f"the text has more than {most} tokens; give less")
    return tokens


def _enter(tokens: list[int], source: str, text: str) -> Entry:
    return Entry(kind="told", time=time.time(), source=source, text=text, tokens=tuple(tokens))


def lead_in(
    talker: TalkingModel,
    told: Sequence[Entry],
    recent: Callable[[int], list[Entry]],
    counters: Counters,
    max_new_tokens: int,
) -> list[Entry]:
    """What is told, with what the stream needs before it.

    recent: the last entries of the ledger, so many at most. counters: where the stream stands.
    """
    if not counters.tokens_seen:
        return [*begin_stream(talker, told[0]), *told]
    if talker.chat is not None and told[0].role is not None:
        told = [*end_open_line(talker.tokenizer, talker.chat, recent), *told]
    is_chat = told[-1].role is not None
    if is_chat and _lacks_room(talker.sleep, counters.window_fill, told, max_new_tokens):
        return [Entry(kind="sleep", time=time.time(), source="turn"), *told]
    return [*told]


def _lacks_room(
    sleep: SleepConfig, filled: int, told: Sequence[Entry], max_new_tokens: int
) -> bool:
    """Whether to sleep before a turn, so that the window does not end within it.

    filled: tokens in the window. A reply is expected to take a quarter of a window at most.
    """
    if not sleep.at_turns or sleep.eviction == "none" or 2 * filled < sleep.window:
        return False
    reply = min(max_new_tokens, sleep.window // 4)
    return filled + sum(len(entry.tokens) for entry in told) + reply > sleep.window


def begin_stream(talker: TalkingModel, first: Entry) -> list[Entry]:
    """What is told before the first entry of a stream, as the model expects it; none for most."""
    tokens = talker.begin(first.role)
    if not tokens:
        return []
    told = _enter(tokens, TEMPLATE, talker.tokenizer.decode(tokens))
    return [dataclasses.replace(told, role="system")]


def end_open_line(
    tokenizer: Tokenizer, chat: Chat, recent: Callable[[int], list[Entry]]
) -> list[Entry]:
    """What is told before a line of a chat, if plain text before it left a mark in front.

    recent: the last entries of the ledger, so many at most.
    """
    last = recent(1)
    if not last or last[0].role is not None:
        return []
    plain = itertools.takewhile(lambda each: each.role is None, reversed(recent(RECENT)))
    plain = [entry for entry in plain if entry.text]
    if not chat.leaves_mark("".join(entry.text for entry in reversed(plain))):
        return []
    return [tell(tokenizer, ChatFormat.end, plain[0].source)]


@dataclasses.dataclass
class Reply:
    """A reply as it comes. start: tokens of the stream before it. tokens: all that were read for
    it, with what the chat puts around it. num_opening: those that were read before it."""

    start: int
    text: ReplyText
    role: Role | None
    tokens: list[int] = dataclasses.field(default_factory=list)
    num_opening: int = 0
    finish: Literal["stop", "length"] | None = None

    @property
    def has_begun(self) -> bool:
        """Whether it is more than what comes before it."""
        return len(self.tokens) > self.num_opening or self.text.is_stopped

    def open(self, talker: TalkingModel) -> Iterator[int]:
        """What is to be read before it, token by token."""
        chat = talker.chat if self.role else None
        opening = chat.open_reply(talker.tokenizer) if chat else []
        self.num_opening = len(opening)
        return self._add(opening)

    def close(self, talker: TalkingModel) -> Iterator[int]:
        """What is to be read after it, where that was not drawn."""
        chat = talker.chat if self.role else None
        drawn = self.tokens[self.num_opening :]
        return self._add(chat.close_reply(talker.tokenizer, drawn) if chat else [])

    def _add(self, tokens: list[int]) -> Iterator[int]:
        for token in tokens:
            self.tokens.append(token)
            yield token

    def enter(self, read: tuple[int, ...], text: str) -> Entry:
        """Its entry, with the tokens that were read, and their text."""
        return Entry(
            kind="reply",
            time=time.time(),
            source=MODEL,
            text=text,
            tokens=read,
            role=self.role,
            said=self.text.shown,
            finish=self.finish,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Where a session stands."""

    tokens_seen: int
    window_fill: int
    """Tokens in the open window."""
    window: int
    """Window length L."""
    num_sleeps: int
    nbytes: int
    """Size of the state."""
    num_entries: int
    """Length of the ledger."""
    is_replying: bool

    def __str__(self) -> str:
        is_replying = " is_replying" if self.is_replying else ""
        return (
            f"tokens_seen={self.tokens_seen} num_sleeps={self.num_sleeps} "
            f"window_fill={self.window_fill}/{self.window} nbytes={self.nbytes}{is_replying}"
        )


PIECE = 4096
"""Characters of a piece at most: about a second of reading for a small model."""


def cut_text(text: str, most: int = PIECE) -> list[str]:
    """The text in pieces of at most so many characters.

    A piece ends with a paragraph or a line, or before the space between two words, if any of them
    ends in its second half. The pieces, one after the other, are the text.
    """
    pieces, start = list[str](), 0
    while len(text) - start > most:
        stop = _find_end(text, start + most // 2, start + most)
        pieces.append(text[start:stop])
        start = stop
    return [*pieces, text[start:]]


def count_known(pieces: Sequence[str], told: Sequence[str]) -> int:
    """How many of the first pieces were told last, where a reading of all of them broke off.

    0 if all were: then it did not break off.
    """
    if [*told[-len(pieces) :]] == [*pieces]:
        return 0
    for count in range(min(len(pieces) - 1, len(told)), 0, -1):
        if told[-count] == pieces[0] and [*told[-count:]] == [*pieces[:count]]:
            return count
    return 0


def _find_end(text: str, low: int, high: int) -> int:
    for mark in ("\n\n", "\n"):
        place = text.rfind(mark, low, high)
        if place >= 0:
            return place + len(mark)
    place = text.rfind(" ", low, high)
    return high if place <= 0 else place
