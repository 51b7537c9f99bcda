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
