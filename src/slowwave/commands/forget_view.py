"""What forgetting would do, shown before it is done."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from slowwave.commands.ledger_view import LedgerRow, list_ledger
from slowwave.commands.printing import count

if TYPE_CHECKING:
    from slowwave.memory.provenance import Provenance
    from slowwave.memory.stored_session import Forgetting


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForgetPreview:
    """What goes, what is read again, and what else is touched."""

    dropped: list[LedgerRow]
    """What goes: what was named, and the replies after it, which may carry it."""
    num_kept: int
    """Entries that are left; all of them are replayed."""
    replayed_tokens: int
    snapshots: list[str]
    """Snapshots that hold something of it, and go too."""
    also_in: list[str]
    """Other sessions that hold something of it, and keep it."""


def preview(forgetting: Forgetting, provenance: Provenance) -> ForgetPreview:
    """What is to be shown of a plan."""
    plan = forgetting.plan
    return ForgetPreview(
        dropped=list_ledger(plan.entries, provenance, frozenset(plan.dropped)),
        num_kept=len(plan.kept),
        replayed_tokens=plan.num_tokens,
        snapshots=[*forgetting.snapshots],
        also_in=[*forgetting.also_in],
    )


def describe_preview(shown: ForgetPreview) -> str:
    """What a table of what goes does not say."""
    tokens = count(shown.replayed_tokens, "token")
    lines = [f"The rest, {_count_entries(shown.num_kept)} with {tokens}, is read again."]
    if any(row.kind == "reply" for row in shown.dropped):
        lines.append("Replies after the first of it may carry it and go too, unless you keep them.")
    if shown.snapshots:
        lines.append(f"Snapshots that hold some of it go too: {', '.join(shown.snapshots)}.")
    if shown.also_in:
        lines.append(f"Sessions that hold it still, and keep it: {', '.join(shown.also_in)}.")
    return "\n".join(lines)


def _count_entries(number: int) -> str:
    return f"{number:,} {'entry' if number == 1 else 'entries'}"
