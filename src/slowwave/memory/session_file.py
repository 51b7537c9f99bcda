"""A session as one file: its ledger, and the states of its head and of its snapshots.

docs/memory-store.md describes it. It is a zip archive in which nothing is compressed, so that
reading it takes no more memory than it has bytes.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections import defaultdict
from pathlib import Path

from slowwave.config import Config, Many
from slowwave.memory.catalogue import Catalogue
from slowwave.memory.catalogue_reads import read_keyed_entries, read_sleeps, read_snapshots
from slowwave.memory.catalogue_rows import Branch, Owner, Planted, Reached, SessionRow, Step
from slowwave.memory.config import GateConfig
from slowwave.memory.ledger import (
    Entry,
    check_entry,
    check_passes,
    check_tokens,
    is_moment,
    recall_speaker,
)
from slowwave.memory.names import Damaged
from slowwave.memory.owner import ELSEWHERE, make_owner
from slowwave.memory.sleep_report import WITHIN, SleepReport, Slept
from slowwave.memory.state_files import StateFiles
from slowwave.sleep.config import SleepConfig
from slowwave.storage.archive import read_archive
from slowwave.storage.json_files import parse_json
from slowwave.storage.memory_file import read_memory
from slowwave.storage.tokenizer import ByteTokenizer

# 1 had no gates, and reports without changes by pass; 2 did not say who spoke
FORMAT = 3
MANIFEST = "session.json"
MOST_NBYTES = 1 << 28
"""Of a manifest, which takes a multiple of them when it is read."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Node(Config):
    """An entry, the number of the one before it, and what was slept in it."""

    before: int | None
    entry: Entry
    sleeps: Many[SleepReport]

    def __post_init__(self) -> None:
        try:
            check_entry(self.entry)
            check_passes(self.entry.passes)
        except ValueError as error:
            raise ValueError(f"{error}; export it again") from None


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedPoint(Config):
    """A snapshot, by the number of its last entry."""

    name: str
    time: float
    last: int | None

    def __post_init__(self) -> None:
        if not is_moment(self.time):
            raise ValueError(
                f"time of snapshot {self.name!r:.80} is {self.time}, which no clock shows; "
                "export it again"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest(Config):
    """All of a session but its states."""

    format: int
    name: str
    model: str
    tokenizer: str
    sleep: SleepConfig
    gate: GateConfig | None = None
    nodes: Many[Node]
    """The tree of entries of head and snapshots; none is before the one that it follows."""
    head: int | None
    """The last entry's number; None if nothing was read."""
    snapshots: Many[NamedPoint]

    def __post_init__(self) -> None:
        numbers = [(node.before, place) for place, node in enumerate(self.nodes)]
        numbers += [(last, len(self.nodes)) for last in self.lasts]
        if not all(number is None or 0 <= number < bound for number, bound in numbers):
            raise ValueError("an entry follows one that is not there; export it again")
        if len({snapshot.name for snapshot in self.snapshots}) < len(self.snapshots):
            raise ValueError("two snapshots have one name; export it again")
        _ = self.owner  # which refuses settings that contradict each other
        if self.tokenizer == ByteTokenizer.fingerprint:
            placed = enumerate(node.entry for node in self.nodes)
            try:
                check_tokens(placed, ByteTokenizer())
            except ValueError as error:
                raise ValueError(f"{error}; export it again") from None

    @property
    def owner(self) -> Owner:
        """What the session was read with."""
        return make_owner(self.model, self.tokenizer, self.sleep, self.gate)

    @property
    def lasts(self) -> list[int | None]:
        """The last entries of all points: of the head, then of the snapshots."""
        return [self.head, *(snapshot.last for snapshot in self.snapshots)]

    @property
    def members(self) -> dict[int, str]:
        """The state files of the archive, by the number of their point.

        An empty point has none, nor has one of a model that runs elsewhere.
        """
        lasts = [] if self.model == ELSEWHERE else enumerate(self.lasts)
        return {i: f"states/{i}.safetensors" for i, last in lasts if last is not None}


@dataclasses.dataclass(frozen=True)
class SessionFile:
    """A manifest, and memory files by the number of their point."""

    manifest: Manifest
    states: dict[int, bytes]


def gather_session(row: SessionRow, catalogue: Catalogue, files: StateFiles) -> SessionFile:
    """A session of a store.

    Raises Damaged if one of its states cannot be read, or it has what no import takes in.
    """
    try:
        return _gather(row, catalogue, files)
    except Damaged:
        raise
    except ValueError as error:
        raise Damaged(f"{catalogue.path}: session {row.name!r}: {error}") from None


def _gather(row: SessionRow, catalogue: Catalogue, files: StateFiles) -> SessionFile:
    numbers, nodes = dict[int, int](), list[Node]()
    with catalogue.reading() as db:
        snapshots = read_snapshots(db, row.id)
        points = [row.head, *(snapshot.point for snapshot in snapshots)]
        for point in points:
            before, reports = None, defaultdict[int, list[SleepReport]](list)
            for placed in read_sleeps(db, point):
                reports[placed.entry].append(placed.slept.report)
            for key, entry in read_keyed_entries(db, point).items():
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
        sleep=row.owner.parse_sleep(),
        gate=row.owner.parse_gate(),
        nodes=tuple(nodes),
        head=lasts[0],
        snapshots=tuple(
            NamedPoint(name=snapshot.name, time=snapshot.time, last=last)
            for snapshot, last in zip(snapshots, lasts[1:], strict=True)
        ),
    )
    stored = [(i, point.file) for i, point in enumerate(points) if point.file is not None]
    if [i for i, _ in stored] != [*manifest.members]:
        raise ValueError("a point lacks its state, or has one too many; restore it from a copy")
    return SessionFile(manifest, {i: files.read(file) for i, file in stored})


def pack_session(session: SessionFile) -> bytes:
    """An archive; equal sessions make equal ones."""
    buffer = io.BytesIO()
    text = json.dumps(session.manifest.to_dict(), sort_keys=True, separators=(",", ":"))
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo(MANIFEST), text)  # whose date is not today's
        for number, member in session.manifest.members.items():
            archive.writestr(zipfile.ZipInfo(member), session.states[number])
    return buffer.getvalue()


def read_session_file(path: Path) -> SessionFile:
    """Reads what `pack_session` made.

    Raises ValueError, in a sentence that names the file, if it is missing, cut, foreign or of
    another format.
    """
    found = read_archive(path)
    if MANIFEST not in found:
        raise ValueError(f"{path}: an archive, but not an exported session; name another")
    manifest = _parse_manifest(path, found[MANIFEST])
    if found.keys() != {MANIFEST, *manifest.members.values()}:
        raise ValueError(f"{path}: lacks a state, or has one too many; export it again")
    return SessionFile(manifest, {i: found[name] for i, name in manifest.members.items()})


def _parse_manifest(path: Path, text: bytes) -> Manifest:
    try:
        if len(text) > MOST_NBYTES:
            raise ValueError(f"it has more than {MOST_NBYTES} bytes")
        values = parse_json(text)
        found = values["format"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path}: not the manifest of a session ({error!s:.200}); export it again"
        ) from None
    if type(found) is not int or not 1 <= found <= FORMAT:
        raise ValueError(
            f"{path}: format {found!r:.80}, but this slowwave reads formats 1 to {FORMAT}; use the "
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
        finish = "stop" if entry.kind == "reply" else None
        entry = dataclasses.replace(entry, role=role, said=said, finish=finish)
        nodes.append(dataclasses.replace(node, entry=entry))
    return dataclasses.replace(manifest, nodes=tuple(nodes))


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
    planted, written = list[Planted](), list[str]()
    try:
        for number, last in enumerate(manifest.lasts):
            reached = Reached(None, 0, 0, 0)
            if number in manifest.members:
                assert last is not None
                written.append(files.copy(session.states[number], row.id))
                reached = _reach(manifest, last, ways[last], files.path(written[-1]))
            elif last is not None and ways[last] != _Way():
                raise ValueError("its model runs elsewhere, yet it has tokens; export it again")
            planted.append((last, reached))
        named = zip(manifest.snapshots, planted[1:], strict=True)
        catalogue.plant(
            row,
            branches,
            planted[0],
            [(snapshot.name, snapshot.time, point) for snapshot, point in named],
        )
    except BaseException:
        files.remove(written)
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
        is_sleep = node.entry.kind == "sleep"
        if (
            [report.number for report in node.sleeps] != numbers
            or not self.slept <= stop <= tokens
            or any((report.trigger in WITHIN) == is_sleep for report in node.sleeps)
            or (is_sleep and len(node.sleeps) != 1)
        ):
            raise ValueError("its sleeps are out of order; export it again")
        slept = sum(report.is_counted for report in node.sleeps)
        return _Way(tokens, stop, self.sleeps + slept), placed


def _reach(manifest: Manifest, last: int, way: _Way, state: Path) -> Reached:
    """The way to an entry as the catalogue has it, if a state is one that it could lead to."""
    try:
        header, tensors = read_memory(state, follow=False)
    except ValueError:
        raise ValueError("a state in it is damaged; export it again") from None
    fill = way.tokens - way.slept
    window = tensors.get("window.tokens")
    if (
        (header.tokens_seen, header.num_sleeps, header.window_fill)
        != (way.tokens, way.sleeps, fill)
        or (header.model, header.tokenizer) != (manifest.model, manifest.tokenizer)
        or header.sleep != manifest.sleep
        or window is None
        or window.tolist() != [_look_back(manifest, last, fill)]
    ):
        raise ValueError("a state in it is of another session; export it again")
    return Reached(state.name, way.tokens, way.sleeps, fill)


def _look_back(manifest: Manifest, last: int, count: int) -> list[int]:
    """The last so many tokens up to an entry, in order."""
    at: int | None = last
    tokens = list[int]()
    while at is not None and len(tokens) < count:
        tokens += reversed(manifest.nodes[at].entry.tokens)
        at = manifest.nodes[at].before
    return tokens[:count][::-1]
