"""How many memories a server finds when it starts."""

from __future__ import annotations

from pathlib import Path

from slowwave.memory.store import Store

CATALOGUE = "catalogue.sqlite"


def describe_memories(directory: Path, *, has_owners: bool) -> str:
    """How many memories lie in a directory, or in the folders of its owners, and which of these
    cannot be opened; whoever asks for one of those hears why."""
    folders = sorted(directory.glob("*/")) if has_owners else [directory]
    counts, damaged = list[int](), list[str]()
    for folder in folders:
        if (folder / CATALOGUE).exists():
            try:
                with Store(folder) as store:
                    counts.append(len(store.sessions()))
            except (ValueError, OSError):
                damaged.append(folder.name)
    owners = f" of {_count(len(counts), 'owner', 'owners')}" if has_owners else ""
    told = f"{_count(sum(counts), 'memory', 'memories')}{owners} in {directory}"
    return told + (f"; cannot be opened: {', '.join(damaged)}" if damaged else "")


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
