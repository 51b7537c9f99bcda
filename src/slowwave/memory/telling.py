"""What is told to a session, as entries of its ledger."""

from __future__ import annotations

import dataclasses
import time

from slowwave.memory.ledger import USER, Entry
from slowwave.memory.turn_steps import Progress, Steps, finish
from slowwave.runtime.chat import ChatFormat, Role
from slowwave.storage.tokenizer import Tokenizer


class TooLong(ValueError):
    """A text has more tokens than may be told."""


def tell(tokenizer: Tokenizer, text: str, source: str = USER) -> Entry:
    """What a text will be in the ledger once it is read; raises ValueError if it is empty."""
    return finish(tell_by_step(tokenizer, text, source))


def say(tokenizer: Tokenizer, chat: ChatFormat, role: Role, text: str, source: str) -> Entry:
    """As `tell`, of a line of a chat; raises ValueError if the text is blank."""
    return finish(say_by_step(tokenizer, chat, role, text, source))


def tell_by_step(
    tokenizer: Tokenizer, text: str, source: str = USER, *, most: int | None = None
) -> Steps[Entry]:
    """As `tell`, in steps of bounded work; raises TooLong at more than `most` tokens."""
    tokens = list[int]()
    for piece in tokenizer.encode_in_pieces(text):
        if tokens:
            yield Progress("read")
        tokens += piece
        if most is not None and len(tokens) > most:
            raise TooLong(f"the text has more than {most} tokens; give less")
    if not tokens:
        raise ValueError("the text is empty; give some text to read")
    return Entry(kind="told", time=time.time(), source=source, text=text, tokens=tuple(tokens))


def say_by_step(
    tokenizer: Tokenizer,
    chat: ChatFormat,
    role: Role,
    text: str,
    source: str,
    *,
    most: int | None = None,
) -> Steps[Entry]:
    """As `say`, in steps as `tell_by_step`."""
    line = chat.write(role, text)
    told = yield from tell_by_step(tokenizer, line, source, most=most)
    return dataclasses.replace(told, role=role, said=text)
