"""The names of memories, of their snapshots and of their owners; torch-free."""

from __future__ import annotations

import re

MOST_CHARACTERS = 128
OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""An owner has a folder of this name, on file systems that know few signs: a part of the names that
`is_fit` allows."""


def is_fit(name: str) -> bool:
    """Whether a new memory or snapshot may have this name.

    It can be printed and typed, and is no path, no option and no point of another name.
    """
    return (
        is_readable(name)
        and not name.startswith((".", "-"))
        and not any(sign in name for sign in "/\\")
    )


def is_readable(name: str) -> bool:
    """Whether a name may be in what was written before, when paths and options were names too."""
    if not 0 < len(name) <= MOST_CHARACTERS:
        return False
    return name.isprintable() and name == name.strip() and "@" not in name


def check_name(what: str, name: str) -> str:
    """A name for something new; raises ValueError if it is unfit."""
    if not is_fit(name):
        raise ValueError(
            f"{what} name {name!r:.80} is unfit; use 1 to {MOST_CHARACTERS} printable characters "
            "without @, / and \\, no dot or dash at the beginning, and no space at either end"
        )
    return name
