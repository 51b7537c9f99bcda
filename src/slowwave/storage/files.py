"""Files: opened only where they are plain ones, written whole or not at all, private if need be."""

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

FULL = (errno.ENOSPC, errno.EDQUOT)
MOST_BYTES = 2**28
"""No file that is read whole because it is small has more."""

FILE = 0o600
FOLDER = 0o700
OTHERS = 0o077


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
    """The rest of an open file; raises ValueError if there is no memory for it."""
    try:
        return file.read()
    except MemoryError:
        raise ValueError(f"{path}: larger than memory; name another") from None


def read_small(path: Path) -> bytes:
    """The bytes of a file; raises as `open_plain`, and ValueError if there are too many."""
    with open_plain(path) as file:
        if os.fstat(file.fileno()).st_size > MOST_BYTES:
            raise ValueError(f"{path}: larger than {MOST_BYTES >> 20} MiB; name another")
        return read_rest(path, file)


def require_plain(path: Path) -> None:
    """Raises ValueError if a link, a folder or a device has this name, or the file has two names.

    A file with another name (a hard link) would be written under that name as well.
    """
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path}: a link or no plain file; put the file itself there")
        if found.st_nlink > 1:
            raise ValueError(f"{path}: has another name too (a hard link); put a copy there")


def require_own_folder(path: Path) -> None:
    """Raises ValueError if anything but a folder, such as a link to one, has this name.

    A file that is written or removed in a linked folder is written or removed elsewhere.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise ValueError(f"{path}: a link or no folder; put the folder itself there")


def write_atomically(path: Path, content: bytes, *, private: bool = False) -> None:
    """Writes beside `path`, syncs, renames: a reader sees the old file or the new one.

    private: only the owner may read it. A kill leaves nothing where the system can write a
    file that has no name yet, and `.NAME.PID.draft` elsewhere. Raises OSError.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    mode = FILE if private else 0o666
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        if not _write_unnamed(draft, content, mode):
            _write_named(draft, content, mode)
        os.replace(draft, path)
        sync_folder(path.parent)
    except OSError as error:
        raise _explain(error, path) from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def _explain(error: OSError, path: Path) -> OSError:
    """The same error in our words, if it is that a disk is full or read-only."""
    if error.errno in FULL:
        return OSError(error.errno, "the disk is full; make room and try again", str(path))
    if error.errno == errno.EROFS:
        return OSError(error.errno, "the disk is read-only; nothing was written", str(path))
    return error


def _write_unnamed(draft: Path, content: bytes, mode: int) -> bool:
    """Gives a file its name when it is written; returns whether the system can do that."""
    if not hasattr(os, "O_TMPFILE"):
        return False
    try:
        descriptor = os.open(draft.parent, os.O_TMPFILE | os.O_WRONLY, mode)
        with open(descriptor, "wb") as file:
            _fill(file, content)
            name = f"/proc/self/fd/{descriptor}"
            # Only with a directory does os.link call linkat, which follows the link there.
            os.link(name, draft, src_dir_fd=descriptor, follow_symlinks=True)
    except OSError as error:
        if error.errno in FULL:
            raise
        return False  # not every file system can, and not every system shows /proc
    return True


def _write_named(draft: Path, content: bytes, mode: int) -> None:
    with open(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as file:
        _fill(file, content)


def _fill(file: BinaryIO, content: bytes) -> None:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Makes names in a folder outlive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
