"""The ledger: what a session was given, call by call.

The same calls in the same order leave the same state, to the bit (`memory/replay.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

EntryKind = Literal["told", "reply", "sleep"]


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
    tokens: tuple[int, ...] = ()
    passes: int | None = None
    """Of a sleep; None is what the session's settings say."""

    @property
    def calls(self) -> Sequence[tuple[int, ...]]:
        """The tokens in the calls that they were read in."""
        if self.kind == "reply":
            return [(token,) for token in self.tokens]
        return [self.tokens] if self.tokens else []
