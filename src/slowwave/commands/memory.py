"""Memories on the command line: where they are, and a table of the commands for them."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from slowwave.commands.printing import print_json
from slowwave.commands.process import DECLINED, USER_ERROR
from slowwave.status_line import StatusLine
from slowwave.wording import describe_unknown

if TYPE_CHECKING:
    from slowwave.memory.store import Store
    from slowwave.memory.talker import Talker

# The file and function in `commands` that run a command, and what it does.
COMMANDS = {
    "list": ("memory_look:list_sessions", "sessions, and what they take on disk"),
    "show": ("memory_look:show", "what was said, from whom, and which sleep consolidated it"),
    "info": ("memory_look:info", "where a session stands, or what a memory or exported file holds"),
    "diff": ("memory_look:diff", "what tells two points apart"),
    "notes": ("memory_notes:notes", "notes in words about a session, and writing them anew"),
    "episodes": ("memory_notes:episodes", "what was told, as statements: list, correct, forget"),
    "snapshot": ("memory_points:snapshot", "give the moment a name to go back to"),
    "rollback": ("memory_points:rollback", "go back, or forth, to a snapshot"),
    "fork": ("memory_points:fork", "a new session with the past of another"),
    "delete": ("memory_points:delete", "remove a session or a snapshot"),
    "forget": ("memory_replay:forget", "forget sources or entries, after a preview"),
    "dream": ("memory_replay:dream", "learn what was told, as a delta of the model's weights"),
    "probe": ("memory_replay:probe", "ask questions before a sleep and after it"),
    "export": ("memory_points:export", "write a session, with its snapshots, as one file"),
    "import": ("memory_points:import_session", "take in an exported session"),
    "rebuild": ("memory_replay:rebuild", "replay the ledger of a session whose state is lost"),
    "resleep": ("memory_replay:resleep", "replay the ledger with another model, as a new session"),
}

DESCRIPTION = """usage: slowwave memory COMMAND [options]

Memories are sessions of slowwave chat --memory NAME. A point is NAME, where the session stands, or
NAME@SNAPSHOT.

commands:
{}

All take --memory-dir DIR (SLOWWAVE_MEMORY_DIR, else memories in the current directory) and --json;
slowwave memory COMMAND --help has the rest."""

DIRECTORY = "SLOWWAVE_MEMORY_DIR"

Directory = Annotated[Path, tyro.conf.arg(metavar="DIR")]
Name = Annotated[
    tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME", help="Name of the session.")
]
NewName = Annotated[
    tyro.conf.Positional[str], tyro.conf.arg(metavar="NEW_NAME", help="Name of the new session.")
]
Point = Annotated[
    tyro.conf.Positional[str], tyro.conf.arg(metavar="POINT", help="NAME, or NAME@SNAPSHOT.")
]
Model = Annotated[Path, tyro.conf.arg(metavar="MODEL")]


def run(arguments: list[str]) -> None:
    """slowwave memory {list,show,info,diff,...} [--memory-dir DIR] [--json]"""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        lines = (f"  {name:<10}{about}" for name, (_, about) in COMMANDS.items())
        print(DESCRIPTION.format("\n".join(lines)))
        sys.exit(0 if arguments else USER_ERROR)
    name, *rest = arguments
    if name not in COMMANDS:
        raise ValueError(describe_unknown("memory command", name, COMMANDS))
    resolve_name(f"slowwave.commands.{COMMANDS[name][0]}")(rest)


def default_directory() -> Path:
    """The directory that the environment names, or `memories` in the current one."""
    return Path(os.environ.get(DIRECTORY) or "memories")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryOptions:
    """Options of all commands for memories."""

    memory_dir: Directory = dataclasses.field(default_factory=default_directory)
    """Directory of memories; SLOWWAVE_MEMORY_DIR, else memories in the current directory."""
    json: bool = False
    """Print one JSON document on stdout."""

    def open_store(self, *, create: bool = False) -> Store:
        """See `open_store`."""
        return open_store(self.memory_dir, create=create)

    def tell(self, document: dict[str, Any], line: str) -> None:
        """Prints what was done: for programs, or for people."""
        if self.json:
            print_json(document)
        else:
            print(line)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Asks a question on stderr, unless `yes`; exits if the answer is no.

        Raises ValueError if no answer can come.
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

        return load(folder, say=status.say)
