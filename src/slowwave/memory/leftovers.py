"""What a store has on disk though nothing leads to it any more, and how it goes.

That is what was deleted, and what killed processes have left.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path

from slowwave.memory.catalogue import Catalogue
from slowwave.memory.catalogue_reads import count_wipes, read_file_names, read_ids
from slowwave.memory.names import Damaged, HeldElsewhere
from slowwave.memory.private_store import SessionLock
from slowwave.memory.state_files import StateFiles

PATIENCE_SECONDS = 0.5
"""How long others who read are waited for after something was deleted."""
OWNED = re.compile(r"\.?(\d+)(-.*\.safetensors(\.\d+\.draft)?|\.lock)", re.ASCII)
"""The names of state files, of their drafts and of locks begin with the id of a session."""


class Leftovers:
    """One for a store and its open sessions. What resists is left to a later call, and `is_wiped`
    says so: another process reads what was there, or the disk is full."""

    def __init__(self, catalogue: Catalogue, files: StateFiles, locks: Path) -> None:
        self._catalogue, self._files, self._locks = catalogue, files, locks

    def lock(self, id_: int, name: str, *, seconds: float = 0) -> SessionLock:
        """Takes the lock of a session; raises ValueError if it is held elsewhere for so long."""
        return SessionLock(self._locks / f"{id_}.lock", name, seconds=seconds)

    def is_wiped(self) -> bool:
        """Whether nothing is left of what was deleted, here or by another process."""
        with self._catalogue.reading() as db:
            asked, done = count_wipes(db)
        return asked == done

    def clear(self, removed: Iterable[str], held: int | None = None) -> None:
        """Removes what was deleted.

        removed: the state files that were named before. held: the session whose lock the caller
        has.
        """
        self._files.remove(removed)
        with self._catalogue.waiting(PATIENCE_SECONDS):
            _try(lambda: self._clear(held))

    def clear_rest(self, held: int | None = None) -> None:
        """Removes what an earlier call could not, or a killed process did not, without waiting."""
        with self._catalogue.waiting(0):
            _try(lambda: self.is_wiped() or self._clear(held))

    def try_to_sweep(self, held: int | None = None, *, seconds: float = 0) -> None:
        """Removes the files that nothing names; waits so long for others who write."""
        with self._catalogue.waiting(seconds):
            _try(lambda: self._sweep(held))

    def _clear(self, held: int | None) -> None:
        with self._catalogue.reading() as db:
            asked, _ = count_wipes(db)
        # The files first, for their room is what the rest needs on a full disk.
        passed = self._sweep(held)
        self._catalogue.collect()
        # By now a turn has named what it was about to name.
        if self._catalogue.wipe() and passed.isdisjoint(chain(*self._find_unnamed().values())):
            self._catalogue.end_wipe(asked)

    def _sweep(self, held: int | None) -> set[Path]:
        """Removes the files that nothing names, but for those that may be about to be named.

        The holder of a session writes a file before it names it: what is of sessions that are held
        elsewhere is passed over, and returned. What is of no session may be of an import or a
        re-sleep, which write and name their files in one transaction.
        """
        unnamed, passed = self._find_unnamed(), set[Path]()
        if held is not None:
            _unlink(unnamed.pop(held, []))
        if not unnamed:
            return passed
        with self._catalogue.writing() as db:
            ids = read_ids(db)
            for id_, paths in self._find_unnamed().items():
                if id_ not in ids:
                    _unlink(paths)
                    continue
                try:
                    lock = self.lock(id_, str(id_))
                except HeldElsewhere:
                    passed.update(paths)
                    continue
                _unlink(paths)
                lock.release()
        return passed

    def _find_unnamed(self) -> dict[int, list[Path]]:
        """State files and drafts that nothing names, and locks of no session, by their ids."""
        # Listed first: what is written and named after that is not seen.
        files, locks = [*self._files.folder.iterdir()], [*self._locks.iterdir()]
        with self._catalogue.reading() as db:
            named, ids = read_file_names(db), read_ids(db)
        unnamed = dict[int, list[Path]]()
        for path in [*files, *locks]:
            owned = OWNED.fullmatch(path.name)
            if owned is None or path.name in named:
                continue
            id_ = int(owned[1])
            if path.suffix != ".lock" or id_ not in ids:
                unnamed.setdefault(id_, []).append(path)
        return unnamed


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _try(step: Callable[[], object]) -> None:
    """What cannot be removed now is removed later; what is damaged, its user is told of."""
    with contextlib.suppress(OSError, Damaged):
        step()
