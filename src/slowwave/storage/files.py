"""Writing a file whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from slowwave.storage.plain_file import open_plain, read_rest
from slowwave.storage.private import FILE

FULL = (errno.ENOSPC, errno.EDQUOT)
MOST_BYTES = 2**28
"""No file of JSON that is read whole is larger."""


def write_atomically(path: Path, content: bytes, *, private: bool = False) -> None:
    """Writes beside `path`, syncs, renames: a reader sees the old file or the new one.

    private: nobody but the owner may read it. A kill leaves nothing where the system can write a
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


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_small(path: Path) -> bytes:
    """The bytes of a file; raises as `open_plain`, and ValueError if there are too many."""
    with open_plain(path) as file:
        if os.fstat(file.fileno()).st_size > MOST_BYTES:
            raise ValueError(f"{path}: larger than {MOST_BYTES >> 20} MiB; name another")
        return read_rest(path, file)


def read_json(path: Path) -> Any:
    """Reads a JSON file; raises ValueError naming the file if it is missing or malformed."""
    try:
        content = read_small(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{path}: no such file; name a folder that holds one") from None
    try:
        return json.loads(content.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error}); restore the file") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
