"""Where a session stands."""

from __future__ import annotations

import dataclasses


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
