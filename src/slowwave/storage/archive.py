"""A zip archive from elsewhere, in which nothing is compressed."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

from slowwave.storage.files import read_plain


def read_archive(path: Path) -> dict[str, bytes]:
    """The members by name; none is unpacked, so all take no more memory than the file has bytes.

    Raises ValueError, in a sentence that names the file, if it is missing, cut, no archive, or has
    members that are compressed, encrypted, larger than the file, or of one name.
    """
    try:
        content = read_plain(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; name an exported session") from None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            obstacle = _find_obstacle(archive.infolist(), len(content))
            if obstacle is None:
                return {info.filename: archive.read(info) for info in archive.infolist()}
    except Exception as error:  # zipfile says of none that it is not raised
        reason = " ".join(f"{error!s:.200}".split())
        raise ValueError(
            f"{path}: truncated, or not an exported session ({reason}); export it again"
        ) from None
    raise ValueError(f"{path}: {obstacle}")


def _find_obstacle(members: Sequence[zipfile.ZipInfo], nbytes: int) -> str | None:
    """What keeps an archive from being read; None if nothing does."""
    is_plain = all(
        member.compress_type == zipfile.ZIP_STORED
        and member.compress_size == member.file_size
        and not member.flag_bits & 1
        for member in members
    )
    if not is_plain or len({member.filename for member in members}) < len(members):
        return "an archive, but not an exported session; name another"
    if sum(member.file_size for member in members) > nbytes:
        return "claims to hold more than it does; export it again"
    return None
