"""The state at a point of a session, held against the ledger that led to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from slowwave.memory.catalogue import Catalogue
from slowwave.memory.catalogue_types import Point
from slowwave.memory.entry_checks import check_passes, check_tokens, naming
from slowwave.memory.ledger import Entry
from slowwave.memory.refusals import Damaged
from slowwave.memory.state_files import StateFiles
from slowwave.runtime.model_folder import Talker
from slowwave.state import MemoryState
from slowwave.storage.tokenizer import Tokenizer

RECENT = 64
"""Entries at the end of a ledger that are looked at when a session is opened."""


def load_state(
    catalogue: Catalogue, files: StateFiles, point: Point, talker: Talker
) -> MemoryState:
    """The state in a point's file; raises Damaged if it is not one that the ledger leads to."""
    state = files.load(point.file, talker)
    _, entries = read_tail(catalogue, point)
    tokens = [token for entry in entries for token in entry.tokens]
    window = tokens[len(tokens) - state.window_fill :]
    if (
        state.counters != (point.tokens_seen, point.num_sleeps, point.window_fill)
        or window != state.window_tokens[0].tolist()
    ):
        assert point.file is not None, "a fresh state is that of an empty ledger"
        raise Damaged(f"{files.path(point.file)}: not the state that its ledger leads to")
    return state


def check_tail(catalogue: Catalogue, point: Point, talker: Talker) -> None:
    """Raises Damaged if tokens of the last entries are not what their text is to the model.

    Those of others are looked at when they are replayed, so that opening takes no longer for a long
    ledger.
    """
    start, entries = read_tail(catalogue, point)
    with _blaming(catalogue):
        check_tokens(enumerate(entries, start), talker.tokenizer)


def check_replay(
    catalogue: Catalogue, placed: Iterable[tuple[int, Entry]], tokenizer: Tokenizer | None
) -> None:
    """Raises Damaged if to replay entries would not end, or read what their text does not say.

    placed: entries, each after its place. tokenizer: that of their tokens; None if it is not known.
    """
    placed = [*placed]
    with _blaming(catalogue):
        for place, entry in placed:
            with naming(place):
                check_passes(entry.passes)
        if tokenizer is not None:
            check_tokens(placed, tokenizer)


def read_tail(catalogue: Catalogue, point: Point) -> tuple[int, list[Entry]]:
    """The place of the first, and so many last entries that the window is in them."""
    count = RECENT
    while True:
        start = max(0, point.num_entries - count)
        entries = catalogue.entries(point, start)
        if not start or sum(len(entry.tokens) for entry in entries) >= point.window_fill:
            return start, entries
        count *= 2


@contextlib.contextmanager
def _blaming(catalogue: Catalogue) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise Damaged(f"{catalogue.path}: {error}; restore it from a copy") from None
