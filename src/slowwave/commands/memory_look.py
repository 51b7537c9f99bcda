"""Looking at memories, which changes nothing: list, show, info, diff."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from slowwave.commands import memory_tables
from slowwave.commands.arguments import parse
from slowwave.commands.ledger_view import list_ledger
from slowwave.commands.memory import MemoryOptions, Point, has_store
from slowwave.commands.printing import print_json, to_json
from slowwave.memory.names import UnknownName, is_fit

if TYPE_CHECKING:
    from slowwave.memory.session_file import Manifest, Node
    from slowwave.memory.store_view import SessionInfo


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListOptions(MemoryOptions):
    """List the sessions, and what all of them take on disk."""


def list_sessions(arguments: list[str]) -> None:
    """slowwave memory list [--json]"""
    options = parse(ListOptions, arguments, prog="slowwave memory list")
    with options.open_store() as store:
        sessions, disk = store.sessions(), store.measure()
    if options.json:
        print_json({"sessions": [_describe_session(info) for info in sessions], "disk": disk})
    else:
        memory_tables.print_sessions(sessions, disk)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShowOptions(MemoryOptions):
    """Show the ledger of a session or snapshot: what was said, from whom, and which sleep
    consolidated it; then the sleeps."""

    point: Point
    last: int | None = None
    """Only so many entries from the end, and their sleeps; all if not given."""

    def __post_init__(self) -> None:
        if self.last is not None and self.last < 1:
            raise ValueError(f"--last is {self.last}; use 1 or more")


def show(arguments: list[str]) -> None:
    """slowwave memory show POINT [--last 20] [--json]"""
    options = parse(ShowOptions, arguments, prog="slowwave memory show")
    with options.open_store() as store:
        entries, sleeps = store.entries(options.point), store.sleeps(options.point)
        provenance = store.provenance(options.point)
    first = max(0, len(entries) - (options.last or len(entries)))
    begin = sum(len(entry.tokens) for entry in entries[:first])
    rows = list_ledger(entries, provenance, range(first, len(entries)))
    spans = [
        (slept, consolidated)
        for slept, consolidated in zip(sleeps, provenance.sleeps, strict=True)
        if not first or slept.stop > begin
    ]
    if options.json:
        told = [{**slept._asdict(), "spans": made} for slept, made in spans]
        shown = {"ledger": rows, "sleeps": told, "window": provenance.window}
        print_json({"point": options.point, **shown})
    else:
        memory_tables.print_ledger(rows, spans)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InfoOptions(MemoryOptions):
    """Say where a session stands, or what a file holds: a memory file (.safetensors) or an
    exported session. A session is meant if there is one of that name."""

    what: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME_OR_FILE")]
    """Name of a session, or path of a file."""


def info(arguments: list[str]) -> None:
    """slowwave memory info NAME_OR_FILE [--json]"""
    options = parse(InfoOptions, arguments, prog="slowwave memory info")
    if not options.what:
        raise ValueError("NAME_OR_FILE is empty; name a session or a file")
    told = _find_session(options) or _describe_file(Path(options.what))
    if options.json:
        print_json(told)
    else:
        memory_tables.print_fields(told)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffOptions(MemoryOptions):
    """Say what tells two points apart: how much the fast weights of each layer differ, and which
    entries only one of them has."""

    first: Point
    second: Point


def diff(arguments: list[str]) -> None:
    """slowwave memory diff POINT POINT [--json]"""
    options = parse(DiffOptions, arguments, prog="slowwave memory diff")
    with options.open_store() as store:
        difference = store.diff(options.first, options.second)
    if options.json:
        print_json({"first": options.first, "second": options.second, **to_json(difference)})
    else:
        memory_tables.print_difference(options.first, options.second, difference)


def _describe_session(info: SessionInfo) -> dict[str, Any]:
    """A session's info, with its snapshots by what users know of them."""
    told = to_json(info)
    told["sleep"] = info.sleep.to_dict()
    told["snapshots"] = [
        {
            "name": mark.name,
            "time": mark.time,
            "num_entries": mark.point.num_entries,
            "tokens_seen": mark.point.tokens_seen,
            "num_sleeps": mark.point.num_sleeps,
        }
        for mark in info.snapshots
    ]
    return told


def _find_session(options: InfoOptions) -> dict[str, Any] | None:
    """Where the session of the name stands; None if a file is meant."""
    path = Path(options.what)
    is_path = not is_fit(options.what) or path.suffix == ".safetensors" or path.exists()
    if is_path and not has_store(options.memory_dir):
        return None
    with options.open_store() as store:
        try:
            told = _describe_session(store.info(options.what))
        except UnknownName:
            if is_path:
                return None
            raise
        gate = store.gate(options.what)
    return {**told, "gate": gate and gate.to_dict()}


def _describe_file(path: Path) -> dict[str, Any]:
    """The fields of a memory file or an exported session."""
    from slowwave.memory.session_file import read_session_file
    from slowwave.storage.files import open_plain
    from slowwave.storage.memory_file import read_header

    if not path.exists():
        raise ValueError(f"{path}: no such file; name a session, or a file that is there")
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; name a file")
    told: dict[str, Any] = {"file": str(path), "nbytes": path.stat().st_size}
    with open_plain(path) as file:
        is_archive = file.read(2) == b"PK"
    if not is_archive:
        return {"kind": "memory file", **told, **read_header(path).to_dict()}
    manifest = read_session_file(path).manifest
    nodes = _follow_head(manifest)
    return {
        "kind": "exported session",
        **told,
        "format": manifest.format,
        "name": manifest.name,
        "num_entries": len(nodes),
        "tokens_seen": sum(len(node.entry.tokens) for node in nodes),
        "num_sleeps": sum(len(node.sleeps) for node in nodes),
        "snapshots": [mark.name for mark in manifest.snapshots],
        "model": manifest.model,
        "tokenizer": manifest.tokenizer,
        "sleep": manifest.sleep.to_dict(),
    }


def _follow_head(manifest: Manifest) -> list[Node]:
    """The entries of the head, the last one first."""
    nodes: list[Node] = []
    at = manifest.head
    while at is not None:
        nodes.append(manifest.nodes[at])
        at = nodes[-1].before
    return nodes
