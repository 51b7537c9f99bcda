"""Errors as one sentence, and as the number that the process which called us is told."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

USER_ERROR = 2
INTERRUPTED = 130
BROKEN_PIPE = 141


def explain(error: Exception) -> str:
    """An error in one line, without the number that Python puts before those of the system."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = str(error)
    return " ".join(text.split())


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Prints what is warned of as one line on stderr, without the place in the code."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(
            f"slowwave: {message}", file=sys.stderr
        )
        yield
