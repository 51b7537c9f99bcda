"""The names of memories, snapshots and owners, and the errors of a store; torch-free."""

from __future__ import annotations

import re
from collections.abc import Sequence

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


class UnknownName(ValueError):
    """There is no session, or no snapshot, of this name."""


class TakenName(ValueError):
    """There is one of this name already."""


class HeldElsewhere(ValueError):
    """Another process, or another holder in this one, has the session open."""


class OtherModel(ValueError):
    """The session was read with another model, tokenizer or setting."""


class Damaged(ValueError):
    """What is on disk cannot be read."""


MOST_NAMES = 20


def list_names(names: Sequence[str]) -> str:
    """For a sentence that says what there is, however much that is."""
    rest = len(names) - MOST_NAMES
    listed = ", ".join(f"{name:.260}" for name in names[:MOST_NAMES]) or "none"
    return f"{listed} and {rest:,} more" if rest > 0 else listed
