"""Who may use a server: API keys, each of an owner with memories of its own."""

from __future__ import annotations

import hashlib
import hmac
import logging
import stat
from pathlib import Path
from typing import NamedTuple

from slowwave.memory.names import OWNER
from slowwave.memory.private_store import FILES, FOLDERS
from slowwave.serving.errors import ApiError

LOG = logging.getLogger("slowwave.serving")

RESERVED = (*FOLDERS, *FILES)
"""Beside the folders of owners there may be a store from the time before there were keys."""


class ApiKey(NamedTuple):
    """An owner and the digest of a key; an owner may have several."""

    owner: str
    digest: bytes


class ApiKeys:
    """All keys of a server; none lets everybody in, as one owner without a name."""

    def __init__(self, keys: list[ApiKey]) -> None:
        self._keys = keys

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find_owner(self, authorization: str | None) -> str:
        """The owner of the key in an Authorization header; raises ApiError if there is none."""
        if not self._keys:
            return ""
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise ApiError(
                401,
                "the API key is missing; send it as 'Authorization: Bearer KEY'",
                code="missing_api_key",
            )
        given, found = _digest(key.strip()), None
        for owner, digest in self._keys:  # all of them, so that time tells nothing
            if hmac.compare_digest(given, digest):
                found = owner
        if found is None:
            raise ApiError(
                401, "the API key is wrong; use one that was given out", code="invalid_api_key"
            )
        return found


def read_api_keys(path: str | Path) -> ApiKeys:
    """Reads a file of lines "owner key"; empty lines and those that begin with # are left out.

    The log has a warning if others can read it too. Raises ValueError if the file is missing or a
    line is unfit; the key is not in the sentence.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        if Path(path).stat().st_mode & stat.S_IROTH:
            LOG.warning("%s: anybody on this machine can read the keys; chmod 600 it", path)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; name a file of lines 'owner key'") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is no text; name a file of lines 'owner key'") from None
    keys: list[ApiKey] = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or not OWNER.fullmatch(words[0]):
            raise ValueError(
                f"{path}: line {number} is not 'owner key'; an owner has 1 to 64 letters, digits, "
                "dots, dashes or underscores, and a key has no spaces"
            )
        keys.append(ApiKey(words[0], _digest(words[1])))
    if not keys:
        raise ValueError(f"{path}: has no keys; write lines 'owner key'")
    if len({key.digest for key in keys}) < len(keys):
        raise ValueError(f"{path}: a key is there twice; give every owner keys of its own")
    _check_owners(path, sorted({key.owner for key in keys}))
    return ApiKeys(keys)


def _check_owners(path: str | Path, owners: list[str]) -> None:
    """Some file systems do not tell upper case from lower: folders must not be shared there."""
    known: dict[str, str] = {}
    for owner in owners:
        other = known.setdefault(owner.casefold(), owner)
        if other != owner:
            raise ValueError(
                f"{path}: owners {other!r} and {owner!r} differ in case alone; rename one"
            )
        if owner.casefold() in RESERVED:
            raise ValueError(
                f"{path}: owner {owner!r} is what a store calls a file of its own; rename it"
            )


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
