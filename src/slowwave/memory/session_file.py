"""A session as one file: its ledger, and the states of its head and of its snapshots.

docs/memory-store.md describes it. It is a zip archive in which nothing is compressed, so that
reading it takes no more memory than it has bytes.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from slowwave.config import Config
from slowwave.memory.catalogue import Catalogue
from slowwave.memory.catalogue_rows import Branch, Reached, SessionRow, Step
from slowwave.memory.config import GateConfig
from slowwave.memory.ledger import Entry, recall_speaker
from slowwave.memory.owner import parse_gate
from slowwave.memory.provenance import Slept
from slowwave.memory.sleep_report import SleepReport
from slowwave.memory.state_files import StateFiles
from slowwave.sleep.config import SleepConfig
from slowwave.storage.files import write_atomically
from slowwave.storage.memory_file import read_header

# 1 had no gates, and reports without changes by pass; 2 did not say who spoke
FORMAT = 3
MANIFEST = "session.json"
MAX_TOKEN = 2**32 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Node(Config):
    """An entry, the number of the one before it, and what was slept in it."""

    before: int | None
    entry: Entry
    sleeps: tuple[SleepReport, ...]

    def __post_init__(self) -> None:
        entry = self.entry
        if not all(0 <= token <= MAX_TOKEN for token in entry.tokens):
            raise ValueError("a token is negative or too large; export it again")
        if entry.passes is not None and not 1 <= entry.passes <= MAX_TOKEN:
            raise ValueError("passes of an entry is out of range; export it again")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedPoint(Config):
    """A snapshot, by the number of its last entry."""

    name: str
    time: float
    last: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest(Config):
    """All of a session but its states."""

    format: int
    name: str
    model: str
    tokenizer: str
    sleep: SleepConfig
    gate: GateConfig | None = None
    nodes: tuple[Node, ...]
    """The tree of entries of head and snapshots; none is before the one that it follows."""
    head: int | None
    """The last entry's number; None if nothing was read."""
    snapshots: tuple[NamedPoint, ...]

    def __post_init__(self) -> None:
        numbers = [(node.before, place) for place, node in enumerate(self.nodes)]
        numbers += [(last, len(self.nodes)) for last in self.lasts]
        if not all(number is None or 0 <= number < bound for number, bound in numbers):
            raise ValueError("an entry follows one that is not there; export it again")
        if len({snapshot.name for snapshot in self.snapshots}) < len(self.snapshots):
            raise ValueError("two snapshots have one name; export it again")

    @property
    def lasts(self) -> list[int | None]:
        """The last entries of all points: of the head, then of the snapshots."""
        return [self.head, *(snapshot.last for snapshot in self.snapshots)]

    @property
    def members(self) -> dict[int, str]:
        """The state files of the archive, by the number of their point; an empty one has none."""
        lasts = enumerate(self.lasts)
        return {i: f"states/{i}.safetensors" for i, last in lasts if last is not None}


@dataclasses.dataclass(frozen=True)
class SessionFile:
    """A manifest, and memory files by the number of their point."""

    manifest: Manifest
    states: dict[int, bytes]


def gather_session(row: SessionRow, catalogue: Catalogue, files: StateFiles) -> SessionFile:
    """A session of a store; raises ValueError if one of its state files is missing."""
    snapshots = catalogue.snapshots(row)
    points = [row.head, *(snapshot.point for snapshot in snapshots)]
    numbers, nodes = dict[int, int](), list[Node]()
    for point in points:
        before, reports = None, defaultdict[int, list[SleepReport]](list)
        for placed in catalogue.sleeps(point):
            reports[placed.entry].append(placed.slept.report)
        for key, entry in catalogue.keyed_entries(point).items():
            if key not in numbers:
                numbers[key] = len(nodes)
                nodes.append(Node(before=before, entry=entry, sleeps=tuple(reports[key])))
            before = numbers[key]
    lasts = [None if point.entry is None else numbers[point.entry] for point in points]
    manifest = Manifest(
        format=FORMAT,
        name=row.name,
        model=row.owner.model,
        tokenizer=row.owner.tokenizer,
        sleep=SleepConfig.from_dict(json.loads(row.owner.sleep)),
        gate=parse_gate(row.owner),
        nodes=tuple(nodes),
        head=lasts[0],
        snapshots=tuple(
            NamedPoint(name=snapshot.name, time=snapshot.time, last=last)
            for snapshot, last in zip(snapshots, lasts[1:], strict=True)
        ),
    )
    stored = [(i, point.file) for i, point in enumerate(points) if point.file is not None]
    return SessionFile(manifest, {i: files.read(file) for i, file in stored})


def write_session_file(path: Path, session: SessionFile) -> None:
    """Writes an archive atomically and privately; equal sessions make equal files."""
    buffer = io.BytesIO()
    text = json.dumps(session.manifest.to_dict(), sort_keys=True, separators=(",", ":"))
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo(MANIFEST), text)  # whose date is not today's
        for number, member in session.manifest.members.items():
            archive.writestr(zipfile.ZipInfo(member), session.states[number])
    write_atomically(path, buffer.getvalue(), private=True)


def read_session_file(path: Path) -> SessionFile:
    """Reads what `write_session_file` wrote.

    Raises ValueError, in a sentence that names the file, if it is missing, cut, foreign or of
    another format.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = {info.filename: info for info in archive.infolist()}
            plain = all(
                info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1
                for info in archive.infolist()
            )
            size = path.stat().st_size
            if MANIFEST not in found or not plain or len(found) < len(archive.infolist()):
                raise ValueError(f"{path}: an archive, but not an exported session; name another")
            if sum(info.file_size for info in archive.infolist()) > size:
                raise ValueError(f"{path}: claims to hold more than it does; export it again")
            manifest = _parse_manifest(path, archive.read(MANIFEST))
            if found.keys() != {MANIFEST, *manifest.members.values()}:
                raise ValueError(f"{path}: lacks a state, or has one too many; export it again")
            states = {number: archive.read(name) for number, name in manifest.members.items()}
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; name an exported session") from None
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise ValueError(
            f"{path}: truncated, or not an exported session ({error}); export it again"
        ) from None
    return SessionFile(manifest, states)


def plant_session(
    session: SessionFile, row: SessionRow, catalogue: Catalogue, files: StateFiles
) -> None:
    """Fills a new session of a store, within the transaction that made it.

    Raises ValueError, and leaves no file, if a state is not one that the ledger leads to.
    """
    manifest = session.manifest
    branches, ways = list[Branch](), list[_Way]()
    for node in manifest.nodes:
        before = _Way() if node.before is None else ways[node.before]
        way, sleeps = before.follow(node)
        ways.append(way)
        branches.append((node.before, Step(node.entry, sleeps)))
    written = dict[int, str]()
    try:
        for number, content in session.states.items():
            written[number] = files.copy(content, row.id)
        reached = [
            (_Way() if last is None else ways[last]).reach(
                manifest, None if last is None else files.path(written[number])
            )
            for number, last in enumerate(manifest.lasts)
        ]
        planted = list(zip(manifest.lasts, reached, strict=True))
        named = zip(manifest.snapshots, planted[1:], strict=True)
        catalogue.plant(
            row,
            branches,
            planted[0],
            [(snapshot.name, snapshot.time, point) for snapshot, point in named],
        )
    except BaseException:
        files.remove(written.values())
        raise


@dataclasses.dataclass(frozen=True)
class _Way:
    """What the entries of a ledger amount to, up to one of them."""

    tokens: int = 0
    slept: int = 0
    """Of the tokens those that a sleep consolidated."""
    sleeps: int = 0

    def follow(self, node: Node) -> tuple[_Way, list[Slept]]:
        """The way with one more entry, and its sleeps with the tokens that they consolidated."""
        placed, stop = list[Slept](), self.slept
        for report in node.sleeps:
            placed.append(Slept(report, stop, stop + report.num_evicted))
            stop += report.num_evicted
        numbers = [self.sleeps + 1 + i for i in range(len(placed))]
        tokens = self.tokens + len(node.entry.tokens)
        if (
            [report.number for report in node.sleeps] != numbers
            or not self.slept <= stop <= tokens
            or (any(report.is_undone for report in node.sleeps) and len(node.sleeps) > 1)
        ):
            raise ValueError("its sleeps are out of order; export it again")
        undone = sum(report.is_undone for report in node.sleeps)
        return _Way(tokens, stop, self.sleeps + len(placed) - undone), placed

    def reach(self, manifest: Manifest, state: Path | None) -> Reached:
        """This as the catalogue has it, if the state is one that this way could lead to."""
        reached = (self.tokens, self.sleeps, self.tokens - self.slept)
        if state is None:
            return Reached(None, *reached)
        try:
            header = read_header(state)
        except ValueError:
            raise ValueError("a state in it is damaged; export it again") from None
        if (
            (header.tokens_seen, header.num_sleeps, header.window_fill) != reached
            or (header.model, header.tokenizer) != (manifest.model, manifest.tokenizer)
            or header.sleep != manifest.sleep
        ):
            raise ValueError("a state in it is of another session; export it again")
        return Reached(state.name, *reached)


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is no number")
    return value


def _parse_manifest(path: Path, text: bytes) -> Manifest:
    try:
        values: Any = json.loads(text, parse_float=_finite, parse_constant=_finite)
        found = values["format"]
    except (ValueError, RecursionError, TypeError, KeyError):
        raise ValueError(f"{path}: not the manifest of a session; export it again") from None
    if found not in range(1, FORMAT + 1):
        raise ValueError(
            f"{path}: format {found!r}, but this slowwave reads formats 1 to {FORMAT}; use the "
            "slowwave that wrote it"
        )
    try:
        manifest = Manifest.from_dict(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return manifest if found == FORMAT else _recall_speakers(manifest)


def _recall_speakers(manifest: Manifest) -> Manifest:
    """Enters who spoke into a manifest of a format that did not say so."""
    nodes = list[Node]()
    for node in manifest.nodes:
        entry = node.entry
        role, said = recall_speaker(entry.kind, entry.source, entry.text)
        entry = dataclasses.replace(entry, role=role, said=said)
        nodes.append(dataclasses.replace(node, entry=entry))
    return dataclasses.replace(manifest, nodes=tuple(nodes))
