"""One process a session."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

from slowwave.memory.refusals import HeldElsewhere

try:
    import fcntl
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "memories that last need locks on files (fcntl), which Linux and macOS have; on Windows "
        "use the Windows Subsystem for Linux",
        name=error.name,
    ) from None


class SessionLock:
    """Held from its making until `release`, or until the process ends in whatever way.

    path: a file that stays, and says who held it last. Raises ValueError naming the holder if the
    session, which the sentence calls `name`, is open elsewhere, be it in this process.
    """

    def __init__(self, path: Path, name: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read()
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


def _name_holder(holder: str) -> str:
    try:
        found = json.loads(holder)
        return f"process {found['pid']} on {found['host']} since {found['since']}"
    except (ValueError, TypeError, KeyError):
        return "another process"  # which has it for less than a moment
