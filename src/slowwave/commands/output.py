"""Standard streams that take whatever comes: signs that an encoding lacks, closed pipes."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys

REPLACE = "slowwave.replace"
# Signs of ours, and of tables, as all encodings have them.
PLAIN_SIGNS = {
    "\u2026": "~",
    "\u23ce": "/",
    "\u2018": "'",
    "\u2019": "'",
    "\u201c": '"',
    "\u201d": '"',
    "\u2013": "-",
    "\u2014": "-",
}


def prepare_streams() -> None:
    """Lets printing replace what an encoding lacks; streams that are closed lead nowhere."""
    codecs.register_error(REPLACE, _replace)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (as long as the process)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=REPLACE)
    stdin = sys.stdin
    if isinstance(stdin, io.TextIOWrapper) and not stdin.closed and stdin.isatty():
        # What is typed there is looked at by `commands/texts.py`, which says what is wrong.
        stdin.reconfigure(errors="surrogateescape")


def flush_or_close() -> None:
    """Writes what is left; raises BrokenPipeError where nobody reads it, and OSError otherwise.

    Then nothing is left, of which the interpreter would complain at its end.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            raise


def _replace(error: UnicodeError) -> tuple[str, int]:
    """A codec's error handler: each sign by one of ours, or by "?" on as many columns."""
    from rich.cells import cell_len

    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    plain = (PLAIN_SIGNS.get(sign, "?" * cell_len(sign)) for sign in lacking)
    return "".join(plain), error.end
