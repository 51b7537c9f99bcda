"""Taking an exported session into a store, if its states are those that its ledger leads to."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from slowwave.memory.catalogue import Catalogue
from slowwave.memory.catalogue_types import Branch, Planted, Reached, SessionRow, Step
from slowwave.memory.provenance import Slept
from slowwave.memory.session_file import Manifest, Node, SessionFile
from slowwave.memory.state_files import StateFiles
from slowwave.storage.memory_file import read_memory


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
            if last is not None:
                written.append(files.copy(session.states[number], row.id))
                reached = _reach(manifest, last, ways[last], files.path(written[-1]))
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
            or any((report.trigger == "full") == is_sleep for report in node.sleeps)
            or (is_sleep and len(node.sleeps) != 1)
        ):
            raise ValueError("its sleeps are out of order; export it again")
        undone = sum(report.is_undone for report in node.sleeps)
        return _Way(tokens, stop, self.sleeps + len(placed) - undone), placed


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
