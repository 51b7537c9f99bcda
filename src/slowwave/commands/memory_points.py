"""Commands that need no model: moments of sessions (snapshot, rollback, fork, delete), and sessions
as files (export, import)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from slowwave.commands.arguments import parse
from slowwave.commands.ledger_view import count_lost, describe_loss, describe_traces
from slowwave.commands.memory import MemoryOptions, Name, NewName, Point
from slowwave.commands.printing import show_bytes
from slowwave.status_line import StatusLine

LARGE_NBYTES = 10_000_000
"""Of a file that takes seconds to take in."""

SnapshotName = Annotated[
    tyro.conf.Positional[str], tyro.conf.arg(metavar="SNAPSHOT", help="Name of the moment.")
]
File = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SnapshotOptions(MemoryOptions):
    """Give the moment at which a session stands a name; nothing is copied."""

    name: Name
    snapshot: SnapshotName


def snapshot(arguments: list[str]) -> None:
    """slowwave memory snapshot NAME SNAPSHOT [--json]"""
    options = parse(SnapshotOptions, arguments, prog="slowwave memory snapshot")
    with options.open_store() as store:
        made = store.snapshot(options.name, options.snapshot)
    point = f"{options.name}@{made.name}"
    options.tell({"snapshot": point, "time": made.time}, f"{point} is kept")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RollbackOptions(MemoryOptions):
    """Go back, or forth, to a snapshot. What was said since and has no snapshot is gone; it asks
    before that."""

    name: Name
    snapshot: SnapshotName
    yes: bool = False
    """Do not ask."""


def rollback(arguments: list[str]) -> None:
    """slowwave memory rollback NAME SNAPSHOT [--yes] [--json]"""
    options = parse(RollbackOptions, arguments, prog="slowwave memory rollback")
    with options.open_store() as store:
        lost = count_lost(store, options.name, options.snapshot)
        if lost:
            options.confirm(f"{describe_loss(lost)} Go back?", yes=options.yes)
        info, is_wiped = store.rollback(options.name, options.snapshot), store.is_wiped()
    told = {"session": info.name, "tokens_seen": info.tokens_seen, "lost_entries": lost}
    line = f"{info.name} is back at {options.snapshot}{describe_traces(is_wiped)}"
    options.tell({**told, "wiped": is_wiped}, line)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForkOptions(MemoryOptions):
    """Make a new session with the past of another, or of a snapshot; nothing is copied."""

    point: Point
    name: NewName


def fork(arguments: list[str]) -> None:
    """slowwave memory fork POINT NEW_NAME [--json]"""
    options = parse(ForkOptions, arguments, prog="slowwave memory fork")
    with options.open_store() as store:
        info = store.fork(options.point, options.name)
    told = {"session": info.name, "tokens_seen": info.tokens_seen}
    options.tell(told, f"{info.name} goes on from {options.point}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeleteOptions(MemoryOptions):
    """Remove a session with all its snapshots, or one snapshot. Forks keep what they share."""

    point: Point
    yes: bool = False
    """Do not ask."""


def delete(arguments: list[str]) -> None:
    """slowwave memory delete POINT [--yes] [--json]"""
    options = parse(DeleteOptions, arguments, prog="slowwave memory delete")
    name, at, mark = options.point.partition("@")
    with options.open_store() as store:
        entries = len(store.entries(options.point))
        what = f"snapshot {options.point}" if at else f"session {name}, its snapshots"
        options.confirm(f"Delete {what} and its {entries:,} entries?", yes=options.yes)
        if at:
            store.drop_snapshot(name, mark)
        else:
            store.delete(name)
        is_wiped = store.is_wiped()
    line = f"{options.point} is gone{describe_traces(is_wiped)}"
    options.tell({"deleted": options.point, "wiped": is_wiped}, line)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions(MemoryOptions):
    """Write a session, with its snapshots, as one file, which replaces one that is there."""

    name: Name
    file: File
    """Where it is written."""


def export(arguments: list[str]) -> None:
    """slowwave memory export NAME FILE [--json]"""
    options = parse(ExportOptions, arguments, prog="slowwave memory export")
    with options.open_store() as store, StatusLine() as status:
        status.show(f"writing {options.file}")
        store.export(options.name, options.file)
    nbytes = options.file.stat().st_size
    told = {"session": options.name, "file": str(options.file), "nbytes": nbytes}
    options.tell(told, f"{options.file}: {show_bytes(nbytes)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportOptions(MemoryOptions):
    """Take in an exported session."""

    file: File
    """What `slowwave memory export` wrote."""
    name: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Name for it; its own if not given."""


def import_session(arguments: list[str]) -> None:
    """slowwave memory import FILE [--name NAME] [--json]"""
    options = parse(ImportOptions, arguments, prog="slowwave memory import")
    from slowwave.memory.session_file import read_session_file

    with StatusLine() as status:
        status.show(f"reading {options.file}")
        read_session_file(options.file)  # so that a bad file leaves no directory
        if (nbytes := options.file.stat().st_size) > LARGE_NBYTES:
            status.say(f"taking in {options.file}, {show_bytes(nbytes)}")
        with options.open_store(create=True) as store:
            info = store.import_session(options.file, options.name)
    told = {"session": info.name, "tokens_seen": info.tokens_seen}
    options.tell(told, f"{info.name}: {info.tokens_seen:,} tokens, {info.num_sleeps:,} sleeps")
