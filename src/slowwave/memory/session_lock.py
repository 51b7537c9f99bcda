"""One process a session."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path

from slowwave.memory.refusals import Damaged, HeldElsewhere
from slowwave.storage.plain_file import NO_FOLLOW, NO_WAIT, require_own_folder, require_plain

MOST_HOLDER = 1000
"""Signs of a lock's file that are read."""


class SessionLock:
    """Held from its making until `release`, or until the process ends in whatever way.

    path: a file that stays, and says who held it last. Raises ValueError naming the holder if the
    session, which the sentence calls `name`, is open elsewhere, be it in this process.
    """

    def __init__(self, path: Path, name: str) -> None:
        require_own_place(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | NO_FOLLOW | NO_WAIT, 0o666)
        self._file = os.fdopen(descriptor, "r+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._file.read(MOST_HOLDER)
            self._file.close()
            raise HeldElsewhere(
                f"session {name!r} is open in {_name_holder(holder)}; close it there first"
            ) from None
        self._file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": since}, self._file)
        self._file.flush()

    def release(self) -> None:
        """Lets go; others may take it from then on."""
        self._file.close()


def require_own_place(path: Path) -> None:
    """Raises Damaged if a lock's file, or its folder, is a link or anything else that is none."""
    try:
        require_own_folder(path.parent)
        require_plain(path)
    except ValueError as error:
        raise Damaged(str(error)) from None


def _name_holder(holder: str) -> str:
    try:
        found = json.loads(holder)
        line = f"process {found['pid']} on {found['host']} since {found['since']}"
        return line if line.isprintable() else "another process"
    except (ValueError, TypeError, KeyError, RecursionError):
        return "another process"  # which has it for less than a moment
