"""The files of a store, which are their owner's alone, and the locks of its sessions."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import time
import weakref
from io import FileIO
from pathlib import Path

from slowwave.memory.catalogue_schema import require_own_files
from slowwave.memory.names import Damaged, HeldElsewhere
from slowwave.storage.files import (
    FILE,
    NO_FOLLOW,
    NO_WAIT,
    is_loose,
    make_private_folder,
    read_plain,
    require_own_folder,
    require_plain,
    tighten,
)

STATES, LOCKS = FOLDERS = ("states", "locks")
CATALOGUE = "catalogue.sqlite"
RESERVE = f"{CATALOGUE}-reserve"
FILES = (CATALOGUE, *(f"{CATALOGUE}{end}" for end in ("-journal", "-wal", "-shm")), RESERVE)


def make_private(directory: Path) -> None:
    """Makes the folders of a store, and takes away the rights of others to what is there.

    Raises Damaged if a folder is a link, or a file of the catalogue has another name elsewhere:
    what is done to them would be done there.
    """
    make_private_directory(directory)
    require_own_files(directory / CATALOGUE)
    for name in FILES:
        tighten(directory / name)
    for name in FOLDERS:
        folder = directory / name
        _require_own(folder)
        try:
            make_private_folder(folder)
        except OSError:
            if not (directory / CATALOGUE).exists():
                raise
            continue  # there is one to look at, on a disk that takes nothing
        with contextlib.suppress(OSError):
            for path in folder.iterdir():
                tighten(path)
        tighten(folder)


def _require_own(folder: Path) -> None:
    try:
        require_own_folder(folder)
    except ValueError as error:
        raise Damaged(str(error)) from None


def make_private_directory(directory: Path) -> None:
    """Makes the directory of a store, or of several.

    One that has other things in it, as the current one may, keeps its rights: those of the files
    and folders of the store are enough.
    """
    make_private_folder(directory)
    directory = directory.resolve()  # which may be where a link of its owner leads
    if not is_loose(directory) or directory.stat().st_mode & stat.S_ISVTX:
        return
    if all(map(_is_ours, directory.iterdir())):
        tighten(directory)


def _is_ours(path: Path) -> bool:
    return path.name in (*FOLDERS, *FILES) or (path / CATALOGUE).exists()


MOST_HOLDER = 1000
"""Bytes of a lock's file that are read."""
PAUSE_SECONDS = 0.005

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

    A process that is forked off does not have it. path: a file that says who held it last. seconds:
    how long others are waited for, who may have it for a moment. Raises ValueError naming the
    holder if the session, which the sentence calls `name`, is open elsewhere, even in this process.
    """

    def __init__(self, path: Path, name: str, *, seconds: float = 0) -> None:
        require_own_place(path)
        make_private_folder(path.parent)
        until = time.monotonic() + seconds
        while (file := _lock(path)) is None:
            if time.monotonic() >= until:
                raise HeldElsewhere(
                    f"session {name!r} is open in {_name_holder(path)}; close it there first"
                )
            time.sleep(PAUSE_SECONDS)
        self._file = file
        _held.add(self)
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        with contextlib.suppress(OSError):  # a full disk has no room for it
            file.truncate(0)
            file.write(json.dumps(holder).encode())

    @property
    def is_held(self) -> bool:
        """Whether this process has it."""
        return not self._file.closed

    def release(self) -> None:
        """Lets go; others may take it from then on."""
        if self.is_held:
            # Closing alone would leave it to a process that was forked off and keeps files open.
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self.leave()

    def leave(self) -> None:
        """As `release`, in a process that was forked off: it stays with the one that has it."""
        self._file.close()


def require_own_place(path: Path) -> None:
    """Raises Damaged if a lock's file, or its folder, is a link or anything else that is none."""
    try:
        require_own_folder(path.parent)
        require_plain(path)
    except ValueError as error:
        raise Damaged(str(error)) from None


_held = weakref.WeakSet[SessionLock]()


def _leave_all() -> None:
    for lock in [*_held]:
        lock.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)


def _lock(path: Path) -> FileIO | None:
    """The file with its lock; None if another has that."""
    flags = os.O_RDWR | os.O_CREAT | NO_FOLLOW | NO_WAIT
    while True:
        file = FileIO(os.open(path, flags, FILE), "r+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(file, path):
                return file
        except BlockingIOError:
            file.close()
            return None
        except BaseException:
            file.close()
            raise
        file.close()  # its session was deleted meanwhile, and the file with it


def _is_at(file: FileIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


def _name_holder(path: Path) -> str:
    try:
        found = json.loads(read_plain(path, follow=False)[:MOST_HOLDER])
        line = f"process {found['pid']} on {found['host']} since {found['since']}"
        return line if line.isprintable() else "another process"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return "another process"  # which has it for less than a moment
