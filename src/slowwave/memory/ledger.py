"""The ledger: what a session was given, call by call.

The same calls in the same order leave the same state, to the bit (`memory/replay.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from slowwave.config import Many
from slowwave.runtime.chat import ChatFormat, Role

EntryKind = Literal["told", "reply", "sleep"]
Finish = Literal["stop", "length"]
USER, MODEL = "user", "model"
"""Sources where no other is named."""


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
    """Who said it, or what it is from; of a sleep, what called for it (asked or idle)."""
    text: str = ""
    """What the tokens say, marks and line ends of a chat included."""
    role: Role | None = None
    """Who spoke in a chat; None of plain text and of sleeps."""
    said: str = ""
    """Of a line of a chat what its client sent, of a reply what it was shown: without mark, end of
    line and stop text."""
    finish: Finish | None = None
    """Why a reply ended; None if it was broken off."""
    request: str = ""
    """Of what was told, a digest of the request that told it, where its client may repeat it."""
    tokens: Many[int] = ()
    passes: int | None = None
    """Of a sleep; None is what the session's settings say."""

    @property
    def is_models(self) -> bool:
        """Whether a model said it: the one of the session, or another whose line a client sent."""
        return self.kind == "reply" or self.role == "assistant" or self.source == MODEL

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
