"""Moments of sessions: snapshot, rollback, fork, delete. None of them needs the model."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import tyro

from slowwave.commands.arguments import parse
from slowwave.commands.forget_view import describe_traces
from slowwave.commands.memory_options import MemoryOptions
from slowwave.commands.printing import print_json
from slowwave.commands.rollback_loss import count_lost, describe_loss

Name = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
SnapshotName = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SNAPSHOT")]
Point = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="POINT")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SnapshotOptions(MemoryOptions):
    """Give the moment at which a session stands a name; nothing is copied."""

    name: Name
    """Name of the session."""
    snapshot: SnapshotName
    """Name of the moment."""


def snapshot(arguments: list[str]) -> None:
    """slowwave memory snapshot NAME SNAPSHOT [--json]"""
    options = parse(SnapshotOptions, arguments, prog="slowwave memory snapshot")
    with options.open_store() as store:
        made = store.snapshot(options.name, options.snapshot)
    point = f"{options.name}@{made.name}"
    _tell(options, {"snapshot": point, "time": made.time}, f"{point} is kept")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RollbackOptions(MemoryOptions):
    """Go back, or forth, to a snapshot. What was said since and has no snapshot is gone; it asks
    before that."""

    name: Name
    """Name of the session."""
    snapshot: SnapshotName
    """Name of the moment."""
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
    _tell(options, {**told, "wiped": is_wiped}, line)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForkOptions(MemoryOptions):
    """Make a new session with the past of another, or of a snapshot; nothing is copied."""

    point: Point
    """NAME, or NAME@SNAPSHOT."""
    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NEW_NAME")]
    """Name of the new session."""


def fork(arguments: list[str]) -> None:
    """slowwave memory fork POINT NEW_NAME [--json]"""
    options = parse(ForkOptions, arguments, prog="slowwave memory fork")
    with options.open_store() as store:
        info = store.fork(options.point, options.name)
    told = {"session": info.name, "tokens_seen": info.tokens_seen}
    _tell(options, told, f"{info.name} goes on from {options.point}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeleteOptions(MemoryOptions):
    """Remove a session with all its snapshots, or one snapshot. Forks keep what they share."""

    point: Point
    """NAME, or NAME@SNAPSHOT."""
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
    _tell(options, {"deleted": options.point, "wiped": is_wiped}, line)


def _tell(options: MemoryOptions, document: dict[str, object], line: str) -> None:
    if options.json:
        print_json(document)
    else:
        print(line)


RUN = {"snapshot": snapshot, "rollback": rollback, "fork": fork, "delete": delete}
