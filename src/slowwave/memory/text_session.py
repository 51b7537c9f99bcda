"""Sessions whose model runs elsewhere: a ledger of words, without tokens or state.

They lie in a store beside the others, and can be moved to a model of this machine
(`Store.resleep`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from slowwave.memory.catalogue import Catalogue, count_leading
from slowwave.memory.catalogue_rows import Reached, SessionRow, Step
from slowwave.memory.ledger import Entry
from slowwave.memory.leftovers import Leftovers
from slowwave.memory.private_store import SessionLock
from slowwave.memory.replay import OnRead
from slowwave.memory.state_files import read_ledger
from slowwave.memory.stored_session import Forgetting

NOTHING = Reached(None, 0, 0, 0)
"""What words alone leave of tokens and state."""


class TextSession:
    """Opened by `Store.open_text`, which lets one holder have it at a time."""

    def __init__(
        self, catalogue: Catalogue, leftovers: Leftovers, row: SessionRow, lock: SessionLock
    ) -> None:
        self._catalogue, self._leftovers, self._row, self._lock = catalogue, leftovers, row, lock

    def __enter__(self) -> TextSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets others open it."""
        self._lock.release()

    @property
    def num_entries(self) -> int:
        """Length of the ledger."""
        return self._row.head.num_entries

    def ledger(self, start: int = 0, stop: int | None = None) -> list[Entry]:
        """All entries, or those at the places start..stop."""
        return read_ledger(self._catalogue, self._row.head, start, stop)

    def last_turn(self) -> tuple[int, list[Entry]] | None:
        """As `StoredSession.last_turn`."""
        before = self._row.before
        if before is None:
            return None
        return before.num_entries, self.ledger(before.num_entries)

    def add_turn(self, entries: Sequence[Entry], *, instead: bool = False) -> None:
        """Enters a turn, or with `instead` in place of the last one; it is on disk then.

        Raises ValueError if there is no last turn, or the ledger was changed from elsewhere.
        """
        if instead and self._row.before is None:
            raise ValueError(f"session {self._row.name!r} has no last turn to be taken anew")
        assert not any(entry.tokens for entry in entries), "the tokens are another model's"
        steps = [Step(entry, []) for entry in entries]
        self._row, _ = self._catalogue.advance(self._row, steps, NOTHING, instead=instead)
        if instead:
            self._leftovers.clear_rest(self._row.id)

    def preview_forgetting(
        self,
        *,
        sources: Collection[str] = (),
        places: Collection[int] = (),
        keep: Collection[int] = (),
    ) -> Forgetting:
        """What goes if sources and places are forgotten; see `plan_forgetting` for the rules."""
        return Forgetting.preview(
            self._catalogue, self._row, sources=sources, places=places, keep=keep
        )

    def forget(self, forgetting: Forgetting, *, on_read: OnRead | None = None) -> None:
        """Does what `preview_forgetting` showed, with the notes and episodes of what goes.

        on_read: as in `StoredSession.forget`; nothing is read again here, so it is told nothing.
        Raises ValueError if the ledger is no longer that of the preview.
        """
        del on_read
        plan = forgetting.plan
        if list(plan.entries) != self.ledger():
            raise ValueError("the ledger is not that of the preview; make a new one")
        steps = [Step(entry, []) for entry in plan.kept_entries[count_leading(plan.kept) :]]
        self._row, removed = self._catalogue.rewrite(
            self._row, plan.kept, steps, NOTHING, forgetting.snapshots
        )
        self._leftovers.clear(removed, self._row.id)
