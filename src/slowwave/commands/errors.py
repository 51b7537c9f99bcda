"""Errors as one sentence, and as the number that the process which called us is told."""

from __future__ import annotations

import errno
import os
import sys

from slowwave.commands.printing import printable
from slowwave.extras import MODULES, say_how_to_install

DECLINED = 1
USER_ERROR = 2
INTERRUPTED = 130
BROKEN_PIPE = 141

# What the system says of a file, and what to do about it.
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


def explain(error: Exception) -> str:
    """An error in one line, which a terminal only shows."""
    text = _explain_system(error) if isinstance(error, OSError) and error.strerror else str(error)
    return printable(" ".join(text.split()))


def explain_missing(module: str) -> str | None:
    """A sentence about a module that is not there; None if that is a fault of ours."""
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
