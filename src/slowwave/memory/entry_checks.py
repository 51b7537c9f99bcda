"""What must be true of entries, wherever they come from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from slowwave.memory.ledger import Entry
from slowwave.sleep.config import MOST_PASSES
from slowwave.storage.tokenizer import Tokenizer

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
    if entry.kind == "sleep" and (entry.tokens or entry.text or entry.said or entry.role):
        raise ValueError("a sleep says something")
    if entry.kind != "sleep" and entry.passes is not None:
        raise ValueError("what is no sleep has passes")
    if entry.kind != "reply" and entry.finish is not None:
        raise ValueError("what is no reply has an end")


def check_passes(passes: int | None) -> None:
    """Raises ValueError if nobody may ask for a sleep of so many passes."""
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
