"""What forgetting would do, shown before it is done."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from slowwave.commands.ledger_view import LedgerRow, list_ledger
from slowwave.commands.printing import count
from slowwave.memory.names import list_names

if TYPE_CHECKING:
    from slowwave.memory.sleep_report import Provenance
    from slowwave.memory.stored_session import Forgetting


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForgetPreview:
    """What goes, what is read again, and what else is touched."""

    dropped: list[LedgerRow]
    """What goes: what was named, and what a model said after it, which may carry it."""
    carriers: list[int]
    """Places of the latter, which could be kept."""
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
        carriers=[*plan.carriers],
        num_kept=len(plan.kept),
        replayed_tokens=plan.num_tokens,
        snapshots=[*forgetting.snapshots],
        also_in=[*forgetting.also_in],
    )


def describe_preview(shown: ForgetPreview) -> str:
    """What a table of what goes does not say."""
    tokens = count(shown.replayed_tokens, "token")
    rest = f"The rest, {_count_entries(shown.num_kept)} with {tokens}, is read again."
    lines = [rest if shown.num_kept else "Nothing else is left."]
    if shown.carriers:
        places = list_names([*map(str, shown.carriers)])
        lines.append(
            "Replies, and lines sent as the model's, after the first of it may carry it and go "
            f"too, unless you keep them: {places}."
        )
    if shown.snapshots:
        lines.append(f"Snapshots that hold some of it go too: {', '.join(shown.snapshots)}.")
    if shown.also_in:
        lines.append(f"Sessions that hold it still, and keep it: {', '.join(shown.also_in)}.")
    lines.append("Files that were exported before, and copies of the directory, are not changed.")
    return "\n".join(lines)


def describe_traces(is_wiped: bool) -> str:
    """What is to be said of the disk after something was deleted; nothing if no trace is left."""
    if is_wiped:
        return ""
    return (
        "; traces of it stay on disk for now, since another process reads the memories or the disk "
        "is full: the next turn or command wipes them"
    )


def _count_entries(number: int) -> str:
    return f"{number:,} {'entry' if number == 1 else 'entries'}"
