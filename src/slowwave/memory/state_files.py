"""The state files of a store.

A file is named after the session that wrote it: whoever holds the session's lock may remove what a
kill has left (`memory/leftovers.py`), for nobody else writes files of that name.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import Tensor

from slowwave.memory.refusals import Damaged
from slowwave.memory.row_checks import is_state_file
from slowwave.memory.session import Session
from slowwave.runtime.model_folder import Talker
from slowwave.state import MemoryState
from slowwave.storage.files import make_private_folder, read_plain, write_atomically
from slowwave.storage.memory_file import load_memory, read_fast_weights, read_memory


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

    def load(self, file: str | None, talker: Talker) -> MemoryState:
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
