"""A reply of a session while it comes."""

from __future__ import annotations

import dataclasses
import time
from typing import Literal

from slowwave.memory.ledger import MODEL, Entry
from slowwave.runtime.chat import Role
from slowwave.runtime.reply_text import ReplyText


@dataclasses.dataclass
class Reply:
    """A reply as it comes. start: tokens of the stream before it. end: of its line."""

    start: int
    text: ReplyText
    end: str
    role: Role | None
    tokens: list[int] = dataclasses.field(default_factory=list)
    finish: Literal["stop", "length"] | None = None

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
