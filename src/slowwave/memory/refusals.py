"""What a store refuses, for those who answer each in its own way."""

from collections.abc import Sequence


class UnknownName(ValueError):
    """There is no session, or no snapshot, of this name."""


class TakenName(ValueError):
    """There is one of this name already."""


class HeldElsewhere(ValueError):
    """Somebody else has the session open."""


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
