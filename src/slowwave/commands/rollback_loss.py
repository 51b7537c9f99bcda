"""What going back to a snapshot would lose."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slowwave.memory.ledger import Entry
    from slowwave.memory.store import Store


def count_lost(store: Store, name: str, snapshot: str) -> int:
    """Entries of a session that none of its snapshots has; raises ValueError if it has no such."""
    store.entries(f"{name}@{snapshot}")
    head = store.entries(name)
    kept = [
        _count_common(head, store.entries(f"{name}@{mark.name}"))
        for mark in store.info(name).snapshots
    ]
    return len(head) - max(kept)


def describe_loss(lost: int) -> str:
    """The loss of `count_lost` in a sentence."""
    if lost == 1:
        return "The last entry has no snapshot and would be gone."
    return f"The last {lost:,} entries have no snapshot and would be gone."


def _count_common(first: list[Entry], second: list[Entry]) -> int:
    """Entries that two ledgers begin with."""
    common = 0
    for mine, other in zip(first, second, strict=False):
        if mine != other:
            break
        common += 1
    return common
