"""The names of a store's files, which are their owner's alone."""

from __future__ import annotations

import contextlib
import stat
from pathlib import Path

from slowwave.memory.catalogue_trust import require_own_files
from slowwave.memory.refusals import Damaged
from slowwave.storage.files import is_loose, make_private_folder, require_own_folder, tighten

FOLDERS = ("states", "locks")
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
