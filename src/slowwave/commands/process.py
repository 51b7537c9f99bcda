"""This process as its caller sees it: streams that take whatever comes, errors in one sentence,
and the number it exits with."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys

from slowwave.commands.printing import printable
from slowwave.wording import MODULES, say_how_to_install

# Exit codes; those over 128 are what a shell makes of SIGINT and SIGPIPE.
DECLINED = 1
USER_ERROR = 2
INTERRUPTED = 130
BROKEN_PIPE = 141

# Errors of the system about a file: what is wrong and what to do.
_SAYINGS = {
    errno.ENOENT: "no such file; name one that is there",
    errno.EISDIR: "is a folder; name a file",
    errno.ENOTDIR: "leads through a file; name a folder",
    errno.EEXIST: "is there already, and no folder; name another",
    errno.EACCES: "permission denied; change its permissions, or name another",
    errno.EPERM: "permission denied; change its permissions, or name another",
    errno.EROFS: "the disk is read-only; name a place on another",
    errno.ENOSPC: "the disk is full; make room",
    errno.ENAMETOOLONG: "the name is too long; name another",
}
_POSIX = ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty")

_REPLACE = "slowwave.replace"
# Characters of ours, and of tables, as all encodings have them.
_PLAIN_SIGNS = {
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
    codecs.register_error(_REPLACE, _replace)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (as long as the process)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_REPLACE)
    stdin = sys.stdin
    if isinstance(stdin, io.TextIOWrapper) and not stdin.closed and stdin.isatty():
        # `require_text` checks the lines that are typed there, and names the wrong byte.
        stdin.reconfigure(errors="surrogateescape")


def flush_or_close() -> None:
    """Writes the rest of stdout and stderr.

    Raises BrokenPipeError if the reader has left and OSError otherwise, and leaves nothing about
    which the interpreter would complain at its end.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            raise


def explain(error: Exception) -> str:
    """An error in one line, without characters that steer a terminal."""
    text = _explain_system(error) if isinstance(error, OSError) and error.strerror else str(error)
    return printable(" ".join(text.split()))


def explain_missing(module: str) -> str | None:
    """A sentence about a missing module; None if slowwave itself is at fault."""
    name = module.partition(".")[0]
    if name in MODULES:
        return f"{name} is not installed; {say_how_to_install(MODULES[name])}"
    if name in _POSIX:
        return (
            f"this needs {name}, which is part of Python on Linux and macOS alone; on Windows use "
            "the Windows Subsystem for Linux"
        )
    if name in sys.stdlib_module_names:
        return f"this Python was built without {name}; install one that has it"
    how = "call pip install -e . in a checkout of slowwave"
    return None if name == "slowwave" else f"{name} is not installed; {how}"


def _explain_system(error: OSError) -> str:
    assert error.strerror is not None
    text = error.strerror
    if error.errno is not None and text == os.strerror(error.errno):
        text = _SAYINGS.get(error.errno, text)
    # Of a file that was to be renamed the second name is the one that was asked for.
    name = error.filename2 or error.filename
    return text if name is None else f"{name}: {text}"


def _replace(error: UnicodeError) -> tuple[str, int]:
    """A codec's error handler: each character by a plain one, or by "?" on as many columns."""
    from rich.cells import cell_len

    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    plain = (_PLAIN_SIGNS.get(sign, "?" * cell_len(sign)) for sign in lacking)
    return "".join(plain), error.end
