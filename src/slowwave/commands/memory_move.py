"""Memories as files, from ledgers, and in other models: export, import, rebuild, resleep."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from slowwave.commands.arguments import parse
from slowwave.commands.memory_options import MemoryOptions, load_model
from slowwave.commands.printing import print_json, show_bytes
from slowwave.memory.config import read_gate
from slowwave.memory.names import check_name
from slowwave.status_line import StatusLine

LARGE_NBYTES = 10_000_000
"""Of a file that takes seconds to take in."""

Model = Annotated[Path, tyro.conf.arg(metavar="MODEL")]
File = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions(MemoryOptions):
    """Write a session, with its snapshots, as one file, which replaces one that is there."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """Name of the session."""
    file: File
    """Where it is written."""


def export(arguments: list[str]) -> None:
    """slowwave memory export NAME FILE [--json]"""
    options = parse(ExportOptions, arguments, prog="slowwave memory export")
    with options.open_store() as store, StatusLine() as status:
        status.show(f"writing {options.file}")
        store.export(options.name, options.file)
    nbytes = options.file.stat().st_size
    if options.json:
        print_json({"session": options.name, "file": str(options.file), "nbytes": nbytes})
    else:
        print(f"{options.file}: {show_bytes(nbytes)}")


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
    if options.json:
        print_json({"session": info.name, "tokens_seen": info.tokens_seen})
    else:
        print(f"{info.name}: {info.tokens_seen:,} tokens, {info.num_sleeps:,} sleeps")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RebuildOptions(MemoryOptions):
    """Replay the ledger of a session wherever its state, or that of a snapshot, cannot be read."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """Name of the session."""
    model: Model
    """Folder of its model."""


def rebuild(arguments: list[str]) -> None:
    """slowwave memory rebuild NAME --model MODEL [--json]"""
    options = parse(RebuildOptions, arguments, prog="slowwave memory rebuild")
    with options.open_store() as store, StatusLine() as status:
        store.info(options.name)
        talker = load_model(options.model)
        rebuilt = store.rebuild(options.name, talker, on_read=status.count_read)
    if options.json:
        print_json({"session": options.name, "rebuilt": rebuilt})
    else:
        print(f"rebuilt {', '.join(rebuilt)}" if rebuilt else "all states are sound")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResleepOptions(MemoryOptions):
    """Replay the ledger of a point with another model, into a new session."""

    point: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="POINT")]
    """NAME, or NAME@SNAPSHOT."""
    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NEW_NAME")]
    """Name of the new session."""
    model: Model
    """Folder of the model that it is for."""
    gate: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """TOML file of what may reject the sleeps of the new session; that of the old one if not
    given."""


def resleep(arguments: list[str]) -> None:
    """slowwave memory resleep POINT NEW_NAME --model MODEL [--json]"""
    options = parse(ResleepOptions, arguments, prog="slowwave memory resleep")
    check_name("session", options.name)
    gate = None if options.gate is None else read_gate(options.gate)
    with options.open_store() as store, StatusLine() as status:
        store.entries(options.point)
        talker = load_model(options.model)
        info = store.resleep(
            options.point, options.name, talker, gate=gate, on_read=status.count_read
        )
    if options.json:
        told = {"tokens_seen": info.tokens_seen, "num_sleeps": info.num_sleeps}
        print_json({"session": info.name, **told})
    else:
        print(f"{info.name}: {info.tokens_seen:,} tokens, {info.num_sleeps:,} sleeps")


RUN = {"export": export, "import": import_session, "rebuild": rebuild, "resleep": resleep}
