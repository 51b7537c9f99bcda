"""The state files of a store.

A file is named after the session that wrote it: whoever holds the session's lock may remove what a
kill has left (`memory/leftovers.py`), for nobody else writes files of that name.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable
from pathlib import Path

from slowwave.generation.model_folder import Talker
from slowwave.memory.session import Session
from slowwave.state import MemoryState
from slowwave.storage.files import write_atomically
from slowwave.storage.memory_file import load_memory
from slowwave.storage.private import make_private_folder


class StateFiles:
    """A folder of memory files, which docs/state-format.md describes."""

    def __init__(self, folder: Path) -> None:
        make_private_folder(folder)
        self.folder = folder

    def path(self, file: str) -> Path:
        """Where a file lies."""
        return self.folder / file

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
        """The state in a file, or that of one who has read nothing; raises as `load_memory`."""
        if file is None:
            return talker.model.initial_state(1)
        return load_memory(
            self.path(file),
            talker.model,
            tokenizer=talker.tokenizer.fingerprint,
            sleep=talker.sleep,
        )

    def read(self, file: str) -> bytes:
        """A memory file as it is; raises ValueError if it is missing."""
        try:
            return self.path(file).read_bytes()
        except FileNotFoundError as error:
            raise ValueError(f"{error.filename}: missing; rebuild its session first") from None

    def remove(self, files: Iterable[str]) -> None:
        """Removes files that nothing names any more; what resists is left to a sweep."""
        for file in files:
            with contextlib.suppress(OSError):
                self.path(file).unlink()


def _name_file(owner: int) -> str:
    return f"{owner}-{uuid.uuid4().hex}.safetensors"
