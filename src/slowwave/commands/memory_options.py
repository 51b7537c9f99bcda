"""Where memories are, and which one is meant."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from slowwave.commands.errors import DECLINED
from slowwave.status_line import StatusLine

if TYPE_CHECKING:
    from slowwave.memory.store import Store
    from slowwave.memory.talker import Talker

DIRECTORY = "SLOWWAVE_MEMORY_DIR"

Directory = Annotated[Path, tyro.conf.arg(metavar="DIR")]


def default_directory() -> Path:
    """The directory that the environment names, or `memories` in the current one."""
    return Path(os.environ.get(DIRECTORY) or "memories")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryOptions:
    """What all commands for memories take."""

    memory_dir: Directory = dataclasses.field(default_factory=default_directory)
    """Directory of memories; SLOWWAVE_MEMORY_DIR, else memories in the current directory."""
    json: bool = False
    """Print one JSON document on stdout."""

    def open_store(self, *, create: bool = False) -> Store:
        """See `open_store`."""
        return open_store(self.memory_dir, create=create)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Asks, unless the answer was given; exits if it is no.

        Raises ValueError if there is nobody to answer.
        """
        if yes:
            return
        if self.json:
            raise ValueError("--json cannot ask whether it may; add --yes")
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline()
        if not answer:
            print(file=sys.stderr)
        if not answer and not sys.stdin.isatty():
            raise ValueError("there is no terminal to answer at; add --yes to go on unasked")
        if answer.strip().lower() not in ("y", "yes"):
            print("nothing was changed", file=sys.stderr)
            sys.exit(DECLINED)


def has_store(directory: Path) -> bool:
    """Whether there are memories in a directory."""
    return directory.is_dir() and (directory / "catalogue.sqlite").exists()


def open_store(directory: Path, *, create: bool = False) -> Store:
    """The store in a directory. Raises ValueError if there is none and none is to be made."""
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory}: is a file; name a directory of memories by --memory-dir")
    if not create and not has_store(directory):
        raise ValueError(
            f"{directory}: no memories here; name their directory by --memory-dir or "
            f"{DIRECTORY}, or start one: slowwave chat MODEL --memory NAME"
        )
    from slowwave.memory.store import Store

    return Store(directory)


def load_model(folder: Path) -> Talker:
    """The model in a folder; raises ValueError if there is none to talk to. Imports torch."""
    with StatusLine() as status:
        status.show(f"loading {folder}")
        from slowwave.memory.talker import load

        return load(folder)
