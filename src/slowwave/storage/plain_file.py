"""Opening what is a file, and nothing else that a name may lead to."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# A system that lacks them has nothing of what they guard against, or is guarded otherwise.
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
NO_WAIT = getattr(os, "O_NONBLOCK", 0)


@contextlib.contextmanager
def open_plain(path: Path, *, follow: bool = True) -> Iterator[BinaryIO]:
    """A file to read; opening it never waits, whatever is there.

    follow: whether `path` may be a symbolic link. Raises ValueError if it is one and may not, or
    leads to a pipe, a device or a folder, and OSError as `open`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | NO_WAIT | (0 if follow else NO_FOLLOW))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError(f"{path}: a symbolic link; put the file itself there") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{path}: no plain file; name another")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def read_plain(path: Path, *, follow: bool = True) -> bytes:
    """The bytes of a file; raises as `open_plain`, and ValueError if they exceed memory."""
    with open_plain(path, follow=follow) as file:
        return read_rest(path, file)


def read_rest(path: Path, file: BinaryIO) -> bytes:
    """What of an open file was not read; raises ValueError if there is no memory for it."""
    try:
        return file.read()
    except MemoryError:
        raise ValueError(f"{path}: larger than memory; name another") from None


def require_plain(path: Path) -> None:
    """Raises ValueError if there is something of this name that is no file, be it a link to one.

    So it does if the file has another name too, under which it would be written as well.
    """
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path}: a link or no plain file; put the file itself there")
        if found.st_nlink > 1:
            raise ValueError(f"{path}: has another name too (a hard link); put a copy there")


def require_own_folder(path: Path) -> None:
    """Raises ValueError if there is something of this name that is no folder, be it a link to one.

    What is written or removed in a folder that is a link happens elsewhere.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise ValueError(f"{path}: a link or no folder; put the folder itself there")
