"""The ledger: what a session was given, call by call, and what must be true of its entries.

The same calls in the same order leave the same state, to the bit (`memory/replay.py`).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from slowwave.config import Many
from slowwave.runtime.config import ChatFormat, Role
from slowwave.sleep.config import MOST_PASSES
from slowwave.storage.tokenizer import Tokenizer

EntryKind = Literal["told", "reply", "sleep"]
Finish = Literal["stop", "length"]
USER, MODEL = "user", "model"
"""Sources where no other is named."""
TEMPLATE = "template"
"""The source of what a stream begins with for its model."""
DREAM = "dream"
"""The source of a sleep that learns from the ledger; its text is how, in JSON."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that happened to a session; its place in the ledger is its name.

    told: all `tokens` were read in one call. reply: they were read one by one, as they were drawn.
    sleep: a sleep that was called for; those of full windows happen by themselves.
    """

    kind: EntryKind
    time: float
    """Seconds since 1970."""
    source: str
    """Who said it, or what it is from; of a sleep, what called for it (asked, idle or dream)."""
    text: str = ""
    """What the tokens say, marks and line ends of a chat included. Of a dream its settings."""
    role: Role | None = None
    """Who spoke in a chat; None of plain text and of sleeps."""
    said: str = ""
    """Of a line of a chat what its client sent, of a reply what it was shown: without mark, end of
    line and stop text. Of other text what was given, where the tokens say it otherwise."""
    finish: Finish | None = None
    """Why a reply ended; None if it was broken off."""
    request: str = ""
    """Of what was told, a digest of the request that told it, where its client may repeat it."""
    tokens: Many[int] = ()
    passes: int | None = None
    """Of a sleep; None is what the session's settings say."""

    @property
    def given(self) -> str:
        """Its text or, of plain text that was told, what was given where that is another."""
        is_plain = self.kind == "told" and self.role is None
        return (self.said if is_plain else "") or self.text

    @property
    def is_models(self) -> bool:
        """Whether a model said it: the one of the session, or another whose line a client sent."""
        return self.kind == "reply" or self.role == "assistant" or self.source == MODEL

    @property
    def is_dream(self) -> bool:
        """Whether it is a sleep that learns from the ledger."""
        return self.kind == "sleep" and self.source == DREAM

    @property
    def calls(self) -> Sequence[tuple[int, ...]]:
        """The tokens in the calls that they were read in."""
        if self.kind == "reply":
            return [(token,) for token in self.tokens]
        return [self.tokens] if self.tokens else []


def recall_speaker(kind: str, source: str, text: str) -> tuple[Role | None, str]:
    """Role and words of an entry that was written before ledgers kept them.

    Read off the marks of the plain chat format and the source, as it was done then.
    """
    chat = ChatFormat()
    line = text.removesuffix(chat.end)
    if kind == "reply":
        return "assistant", line
    if kind == "sleep" or line == text or len(line.splitlines()) > 1:
        return None, ""
    if source == MODEL:
        return "assistant", line
    if line.startswith(chat.user_mark):
        return "user", line.removeprefix(chat.user_mark)
    if line.startswith(chat.system_mark):
        return "system", line.removeprefix(chat.system_mark)
    return None, ""


LATEST = 253_402_300_800.0
"""Seconds from 1970 to the year 10,000, which no calendar of Python's shows."""
MOST_TOKEN = 2**32 - 1
"""Token ids are kept in 32 bits."""


def is_moment(seconds: float) -> bool:
    """Whether seconds since 1970 are a time that clocks and calendars can show."""
    return 0 <= seconds < LATEST


def check_entry(entry: Entry) -> None:
    """Raises ValueError, in half a sentence, if an entry contradicts itself."""
    if not is_moment(entry.time):
        raise ValueError(f"time is {entry.time}, which no clock shows")
    if entry.tokens and not 0 <= min(entry.tokens) <= max(entry.tokens) <= MOST_TOKEN:
        raise ValueError("a token is negative or too large")
    says = entry.tokens or entry.said or entry.role or (entry.text and not entry.is_dream)
    if entry.kind == "sleep" and says:
        raise ValueError("a sleep says something")
    if entry.kind != "sleep" and entry.passes is not None:
        raise ValueError("what is no sleep has passes")
    if entry.kind != "reply" and entry.finish is not None:
        raise ValueError("what is no reply has an end")


def check_passes(passes: int | None) -> None:
    """Raises ValueError if no sleep may have so many passes."""
    if passes is not None and not 1 <= passes <= MOST_PASSES:
        raise ValueError(f"passes is {passes!r:.80}; use 1 (plain eviction) to {MOST_PASSES}")


def check_vocabulary(entry: Entry, vocab_size: int) -> None:
    """Raises ValueError if an entry has tokens that a model of so many does not know."""
    if max(entry.tokens, default=0) >= vocab_size:
        raise ValueError(f"it has a token out of 0 to {vocab_size - 1}")


def check_tokens(placed: Iterable[tuple[int, Entry]], tokenizer: Tokenizer) -> None:
    """Raises ValueError if tokens are not of the vocabulary, or do not say what the text says.

    placed: entries, each after its place, which the sentence names.
    """
    for place, entry in placed:
        with naming(place):
            check_vocabulary(entry, tokenizer.vocab_size)
        if entry.kind != "sleep" and tokenizer.decode(entry.tokens) != entry.text:
            raise ValueError(f"the tokens at place {place} do not say what its text says")


@contextlib.contextmanager
def naming(place: int) -> Iterator[None]:
    """A ValueError within is of the entry at a place, which the sentence names."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"the entry at place {place} is unfit: {error}") from None
