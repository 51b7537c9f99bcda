"""What is in a store is its owner's alone, whatever the umask and whatever was there before."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from slowwave.memory.store import Store
from slowwave.memory.talker import Talker


@pytest.fixture(params=[0o000, 0o022], ids="umask {:03o}".format)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def loose(directory: Path) -> list[str]:
    """What others have rights to."""
    paths = [directory, *directory.rglob("*")]
    return sorted(path.name for path in paths if path.stat().st_mode & 0o077)


def live(directory: Path, talker: Talker) -> list[str]:
    """What others have rights to while a session is open."""
    with Store(directory) as store, store.open("ann", talker, create=True) as session:
        session.read("Hello.")
        store.export("ann", directory / "ann.memory")
        names = {path.name for path in directory.iterdir()}
        assert {"catalogue.sqlite-wal", "catalogue.sqlite-shm"} <= names
        return loose(directory)


def test_a_store_is_its_owners_alone(tmp_path: Path, talker: Talker, umask: int) -> None:
    assert live(tmp_path / "a" / "store", talker) == []
    assert loose(tmp_path / "a" / "store") == []
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o777 & ~umask


def test_a_store_that_others_could_read_is_tightened(tmp_path: Path, talker: Talker) -> None:
    directory = tmp_path / "store"
    live(directory, talker)
    (directory / "ann.memory").unlink()
    with Store(directory):  # whose log is there too
        for path in [directory, *directory.rglob("*")]:
            path.chmod(0o777 if path.is_dir() else 0o666)
        with Store(directory):
            assert loose(directory) == []


def test_files_in_a_folder_that_is_tight_are_tightened_too(tmp_path: Path, talker: Talker) -> None:
    live(tmp_path / "store", talker)
    (tmp_path / "store" / "ann.memory").unlink()
    files = [path for name in ("states", "locks") for path in (tmp_path / "store" / name).iterdir()]
    for path in files:
        path.chmod(0o666)
    assert len(loose(tmp_path / "store")) == 2
    Store(tmp_path / "store").close()
    assert loose(tmp_path / "store") == []


@pytest.mark.parametrize("shared", ["has other things", "is for all"])
def test_a_directory_that_is_shared_keeps_its_rights(
    tmp_path: Path, talker: Talker, shared: str
) -> None:
    """As the current one, or /tmp: what is in it is the store's alone."""
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o1777 if shared == "is for all" else 0o755)
    if shared == "has other things":
        (directory / "thesis.txt").touch(mode=0o644)
        (directory / "thesis.txt").chmod(0o644)
    for _ in range(2):
        live(directory, talker)
        assert set(loose(directory)) <= {"shared", "thesis.txt"}
        assert directory.stat().st_mode & 0o077


def test_a_directory_that_a_link_leads_to_is_its_owners_alone(
    tmp_path: Path, talker: Talker
) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(0o755)
    (tmp_path / "link").symlink_to(tmp_path / "store")
    assert live(tmp_path / "link", talker) == []
    assert loose(tmp_path / "store") == []


def test_a_directory_of_stores_is_their_owners_alone(tmp_path: Path, talker: Talker) -> None:
    """As a server's, with a store for each of its users beside one from before it had keys."""
    directory = tmp_path / "memories"
    live(directory, talker)
    (directory / "ann.memory").unlink()
    Store(directory / "ann").close()
    directory.chmod(0o755)
    Store(directory).close()
    assert loose(directory) == []
