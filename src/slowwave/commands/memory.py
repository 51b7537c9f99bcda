"""The commands that look after memories: a table of them, each with its options elsewhere."""

from __future__ import annotations

import sys
from importlib import import_module

from slowwave.commands.process import USER_ERROR
from slowwave.wording import describe_unknown

# The file that holds a command, and what the command does.
COMMANDS = {
    "list": ("memory_look", "sessions, and what they take on disk"),
    "show": ("memory_look", "what was said, from whom, and which sleep consolidated it"),
    "info": ("memory_look", "where a session stands, or what a memory or exported file holds"),
    "diff": ("memory_look", "what tells two points apart"),
    "snapshot": ("memory_points", "give the moment a name to go back to"),
    "rollback": ("memory_points", "go back, or forth, to a snapshot"),
    "fork": ("memory_points", "a new session with the past of another"),
    "delete": ("memory_points", "remove a session or a snapshot"),
    "forget": ("memory_forget", "forget sources or entries, after a preview"),
    "probe": ("memory_probe", "ask questions before a sleep and after it"),
    "export": ("memory_move", "write a session, with its snapshots, as one file"),
    "import": ("memory_move", "take in an exported session"),
    "rebuild": ("memory_move", "replay the ledger of a session whose state is lost"),
    "resleep": ("memory_move", "replay the ledger with another model, as a new session"),
}

DESCRIPTION = """usage: slowwave memory COMMAND [options]

Memories are sessions of slowwave chat --memory NAME. A point is NAME, where the session stands, or
NAME@SNAPSHOT.

commands:
{}

All take --memory-dir DIR (SLOWWAVE_MEMORY_DIR, else memories in the current directory) and --json;
slowwave memory COMMAND --help has the rest."""


def run(arguments: list[str]) -> None:
    """slowwave memory {list,show,info,diff,...} [--memory-dir DIR] [--json]"""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        lines = (f"  {name:<10}{about}" for name, (_, about) in COMMANDS.items())
        print(DESCRIPTION.format("\n".join(lines)))
        sys.exit(0 if arguments else USER_ERROR)
    name, *rest = arguments
    if name not in COMMANDS:
        raise ValueError(describe_unknown("memory command", name, COMMANDS))
    file = import_module(f"slowwave.commands.{COMMANDS[name][0]}")
    file.RUN[name](rest)
