"""What a server says of the memories that it finds."""

from __future__ import annotations

from pathlib import Path

from slowwave.memory.store import Store
from slowwave.memory.talker import Talker
from slowwave.serving.memory_count import describe_memories


def test_memories_are_counted(tmp_path: Path, talker: Talker) -> None:
    assert describe_memories(tmp_path / "m", has_owners=False) == f"0 memories in {tmp_path / 'm'}"
    assert not (tmp_path / "m").exists()
    _fill(tmp_path, talker, "ann")
    assert describe_memories(tmp_path, has_owners=False) == f"1 memory in {tmp_path}"


def test_owners_are_counted_and_damage_is_named(tmp_path: Path, talker: Talker) -> None:
    _fill(tmp_path, talker, "nobody's")
    _fill(tmp_path / "ann", talker, "a", "b")
    _fill(tmp_path / "bob", talker)
    for folder in ("carl", "dora"):
        (tmp_path / folder).mkdir()
    (tmp_path / "carl" / "catalogue.sqlite").write_bytes(b"no catalogue" * 100)
    assert describe_memories(tmp_path, has_owners=True) == (
        f"2 memories of 2 owners in {tmp_path}; cannot be opened: carl"
    )


def _fill(directory: Path, talker: Talker, *names: str) -> None:
    with Store(directory) as store:
        for name in names:
            store.open(name, talker, create=True).close()
