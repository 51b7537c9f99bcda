"""The state files of a store, each held against the ledger that led to it.

A file is named after the session that wrote it: the holder of the session's lock may remove what a
kill has left (`memory/leftovers.py`), for no other process writes files of that name.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import Tensor

from slowwave.memory.catalogue import Catalogue
from slowwave.memory.catalogue_reads import read_entries
from slowwave.memory.catalogue_rows import Point, is_state_file
from slowwave.memory.ledger import Entry, check_passes, check_tokens, naming
from slowwave.memory.names import Damaged
from slowwave.memory.session import Session
from slowwave.runtime.model_folder import TalkingModel
from slowwave.state import MemoryState
from slowwave.storage.files import make_private_folder, read_plain, write_atomically
from slowwave.storage.memory_file import load_memory, read_fast_weights, read_memory
from slowwave.storage.tokenizer import Tokenizer


class StateFiles:
    """A folder of memory files, which docs/state-format.md describes."""

    def __init__(self, folder: Path) -> None:
        make_private_folder(folder)
        self.folder = folder

    def path(self, file: str) -> Path:
        """Where a file lies; raises Damaged if the name is none that is made here."""
        if not is_state_file(file):
            raise Damaged(f"{self.folder}: {file!r:.80} is no name of a state file")
        return self.folder / file

    def has(self, file: str | None) -> bool:
        """Whether a file is there; the state of one who has read nothing has none."""
        return file is None or self.path(file).exists()

    def save(self, session: Session, owner: int) -> str:
        """Writes the state of a session for the one with this id; returns the file's name."""
        file = _name_file(owner)
        session.save(self.path(file))
        return file

    def copy(self, content: bytes, owner: int) -> str:
        """Writes a memory file as it is; returns its name."""
        file = _name_file(owner)
        write_atomically(self.path(file), content, private=True)
        return file

    def load(self, file: str | None, talker: TalkingModel) -> MemoryState:
        """The state in a file, or that of one who has read nothing; raises Damaged."""
        if file is None:
            return talker.model.initial_state(1)
        with self._finding(file) as path:
            return load_memory(
                path,
                talker.model,
                tokenizer=talker.tokenizer.fingerprint,
                sleep=talker.sleep,
                follow=False,
            )

    def read(self, file: str) -> bytes:
        """A memory file as it is; raises Damaged if it is missing or no sound one."""
        with self._finding(file) as path:
            read_memory(path, follow=False)
            return read_plain(path, follow=False)

    def read_fast_weights(self, file: str) -> list[Tensor]:
        """(B, G, K, V) of every recurrent layer, in order; raises Damaged."""
        with self._finding(file) as path:
            return read_fast_weights(path, follow=False)

    def measure(self, file: str | None) -> int:
        """Bytes of a file; 0 if it is missing."""
        return 0 if file is None else measure_file(self.path(file))

    @contextlib.contextmanager
    def _finding(self, file: str) -> Iterator[Path]:
        """Where a file lies; whatever is refused within is damage, and no user's mistake."""
        path = self.path(file)
        if not os.path.lexists(path):
            raise Damaged(f"{path}: missing; rebuild its session first")
        try:
            yield path
        except ValueError as error:
            raise Damaged(str(error)) from None

    def remove(self, files: Iterable[str]) -> None:
        """Removes files that nothing names any more; what resists is left to a sweep."""
        for file in files:
            with contextlib.suppress(OSError):
                (self.folder / Path(file).name).unlink()  # whatever it is, it is in the folder


def measure_file(path: Path) -> int:
    """Bytes of a file, or of the link that is in its place; 0 if it is missing."""
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def _name_file(owner: int) -> str:
    return f"{owner}-{uuid.uuid4().hex}.safetensors"


RECENT = 64
"""Entries at the end of a ledger that are looked at when a session is opened."""


def load_state(
    catalogue: Catalogue, files: StateFiles, point: Point, talker: TalkingModel
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


def check_tail(catalogue: Catalogue, point: Point, talker: TalkingModel) -> None:
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
        entries = read_ledger(catalogue, point, start)
        if not start or sum(len(entry.tokens) for entry in entries) >= point.window_fill:
            return start, entries
        count *= 2


def read_ledger(
    catalogue: Catalogue, point: Point, start: int = 0, stop: int | None = None
) -> list[Entry]:
    """As `read_entries`, in a transaction of its own, or a part of one."""
    with catalogue.reading() as db:
        return read_entries(db, point, start, stop)


@contextlib.contextmanager
def _blaming(catalogue: Catalogue) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise Damaged(f"{catalogue.path}: {error}; restore it from a copy") from None
