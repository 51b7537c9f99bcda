"""Files and folders that nobody but their owner may read."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

FILE = 0o600
FOLDER = 0o700
OTHERS = 0o077


def make_private_folder(path: Path) -> bool:
    """Makes a folder, whatever the umask; returns whether it was missing."""
    try:
        path.mkdir(mode=FOLDER)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return make_private_folder(path)
    except FileExistsError:
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(path)) from None
        return False
    return True


def is_loose(path: Path) -> bool:
    """Whether others have rights to a file or folder of ours; no link is one, be it hard."""
    if not hasattr(os, "geteuid"):
        return False  # a system whose files have no modes
    try:
        found = path.lstat()
    except OSError:
        return False
    is_linked = stat.S_ISLNK(found.st_mode) or (
        found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode)
    )
    is_ours = found.st_uid == os.geteuid() and not is_linked
    return is_ours and bool(found.st_mode & OTHERS)


def tighten(path: Path) -> None:
    """Takes away the rights of others to a file or folder of ours, where the disk allows it."""
    if is_loose(path):
        with contextlib.suppress(OSError):
            path.chmod(stat.S_IMODE(path.lstat().st_mode) & ~OTHERS)
