"""A disk that is full or read-only: what is there is listed, shown and, on a full one, deleted."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slowwave.memory import catalogue_database
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker

RESERVE = "catalogue.sqlite-reserve"


def fill(directory: Path, talker: Talker, *names: str) -> None:
    with Store(directory) as store:
        for name in names:
            with store.open(name, talker, create=True) as session:
                session.read(f"Hello {name}.")
                session.snapshot("new")


def look(store: Store, talker: Talker, name: str) -> list[str]:
    """Everything that changes nothing; the names of all sessions."""
    assert [entry.text for entry in store.entries(name)] == [f"Hello {name}."]
    assert store.info(name).num_entries == 1
    assert store.state(f"{name}@new", talker).tokens_seen == len(f"Hello {name}.")
    assert store.diff(name, name).only_first == []
    assert store.measure().heads
    assert store.sources(name)[0].source == "user"
    return [info.name for info in store.sessions()]


# A read-only disk.


@pytest.fixture
def read_only(tmp_path: Path, talker: Talker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A store whose rights, and not even root's, allow no more than reading."""
    directory = tmp_path / "store"
    fill(directory, talker, "ann")
    access = os.access

    def forbid(path: Any, mode: int) -> bool:
        return mode != os.W_OK and access(path, mode)

    monkeypatch.setattr(os, "access", forbid)
    paths = [directory, *directory.rglob("*")]
    for path in paths:
        path.chmod(0o500 if path.is_dir() else 0o400)
    yield directory
    for path in paths:
        path.chmod(0o700 if path.is_dir() else 0o600)


def test_a_read_only_store_can_be_looked_at(
    read_only: Path, tmp_path: Path, talker: Talker
) -> None:
    files = [path for path in read_only.rglob("*") if path.is_file()]
    before = [path.read_bytes() for path in files]
    with Store(read_only) as store:
        assert look(store, talker, "ann") == ["ann"]
        store.export("ann", tmp_path / "ann.memory")
        for change in (
            lambda: store.delete("ann"),
            lambda: store.drop_snapshot("ann", "new"),
            lambda: store.rollback("ann", "new"),
            lambda: store.fork("ann", "bob"),
            lambda: store.open("ann", talker),
            lambda: store.open("bob", talker, create=True),
            lambda: store.import_session(tmp_path / "ann.memory", "bob"),
            lambda: store.rebuild("ann", talker),
        ):
            with pytest.raises(OSError, match="read-only; nothing can be changed here"):
                change()
    assert [path.read_bytes() for path in files] == before


def test_an_older_store_that_is_read_only_can_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is migrated in memory."""
    with zipfile.ZipFile(Path(__file__).with_name("earlier_formats.zip")) as archive:
        archive.extractall(tmp_path)
    path = tmp_path / "memories" / "catalogue.sqlite"
    before = path.read_bytes()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with Store(path.parent) as store:
        assert [info.name for info in store.sessions()] == ["ann", "bob", "eve"]
        assert {entry.role for entry in store.entries("ann")} == {"user", "assistant", None}
        with pytest.raises(OSError, match="read-only; nothing can be changed here"):
            store.delete("ann")
    assert path.read_bytes() == before


def test_turns_that_are_still_in_the_log_are_not_left_out(
    tmp_path: Path, talker: Talker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read where SQLite can; elsewhere nothing is, rather than less than there was."""
    fill(tmp_path / "store", talker, "ann")
    with Store(tmp_path / "store") as store, store.open("ann", talker) as session:
        session.read("Later.")
        shutil.copytree(tmp_path / "store", tmp_path / "killed")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with Store(tmp_path / "killed") as store:
        assert [entry.text for entry in store.entries("ann")] == ["Hello ann.", "Later."]
    (tmp_path / "killed" / "catalogue.sqlite-shm").unlink(missing_ok=True)
    connect = sqlite3.connect

    def refuse(path: object, **named: Any) -> sqlite3.Connection:
        if "mode=ro" in str(path) and "immutable" not in str(path):
            error = sqlite3.OperationalError("unable to open database file")
            error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
            raise error
        return connect(str(path), **named)

    monkeypatch.setattr(sqlite3, "connect", refuse)
    assert (tmp_path / "killed" / "catalogue.sqlite-wal").stat().st_size
    with pytest.raises(OSError, match="its last turns are still in the log beside it; copy both"):
        Store(tmp_path / "killed")


# A full disk.


class FullDisk(sqlite3.Connection):
    """Has room for nothing while the reserve takes it."""

    reserve: Path
    num_refused = 0

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if sql == "COMMIT" and self.reserve.exists() and self.total_changes > self.before:
            FullDisk.num_refused += 1
            super().execute("ROLLBACK")
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        if sql.startswith("BEGIN"):
            self.before = self.total_changes
        return super().execute(sql, *values)


def test_a_session_is_deleted_with_the_room_of_the_reserve(
    tmp_path: Path, talker: Talker, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, talker, "ann", "bob")
    connect = sqlite3.connect
    FullDisk.reserve = tmp_path / RESERVE
    make = catalogue_database.Reserve.make

    def connect_full(*path: Any, **named: Any) -> sqlite3.Connection:
        return connect(*path, factory=FullDisk, **named)

    monkeypatch.setattr(sqlite3, "connect", connect_full)
    with Store(tmp_path) as store:
        assert look(store, talker, "ann") == ["ann", "bob"]
        with pytest.raises(OSError, match="the disk is full; make room and try again") as full:
            store.fork("ann", "cid")
        assert full.value.errno == errno.ENOSPC
        with store.open("ann", talker) as session:
            with pytest.raises(OSError, match=r"the disk is full; make room and .*: the turn is"):
                session.read("more")
            session.drop_snapshot("new")
        store.delete("ann")
        assert store.is_wiped()
        assert look(store, talker, "bob") == ["bob"]
    assert FullDisk.num_refused >= 4
    assert catalogue_database.Reserve.make == make
    assert (tmp_path / RESERVE).stat().st_size == catalogue_database.RESERVE_NBYTES


def test_the_reserve_is_never_written_to_what_is_there(tmp_path: Path) -> None:
    """In a directory from elsewhere it may be another name of another file."""
    other, directory = tmp_path / "other", tmp_path / "store"
    other.write_bytes(b"mine")
    other.chmod(0o644)
    for link in (os.symlink, os.link):
        Store(directory).close()
        (directory / RESERVE).unlink()
        link(other, directory / RESERVE)
        Store(directory).close()
        assert other.read_bytes() == b"mine"
        assert other.stat().st_mode & 0o777 == 0o644
        assert (directory / RESERVE).lstat().st_size == catalogue_database.RESERVE_NBYTES


SMALL_DISK = """
import json, os, subprocess, sys
from pathlib import Path
disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], check=True)
sys.path.insert(0, sys.argv[2])
import test_disks
print("mounted", flush=True)
test_disks.fill_and_delete(disk)
test_disks.mount_read_only(disk)
print("done", flush=True)
"""


def test_a_disk_of_its_own(tmp_path: Path) -> None:
    """A file system of 16 MiB in memory, in a name space where this process may mount one."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        pytest.skip("no name spaces here")
    python = [sys.executable, "-c", SMALL_DISK, str(tmp_path), str(Path(__file__).parent)]
    ran = subprocess.run(
        ["unshare", "--map-root-user", "--mount", *python], capture_output=True, text=True
    )
    if "mounted" not in ran.stdout:
        pytest.skip(f"nothing can be mounted here: {ran.stderr.strip().splitlines()[-1:]}")
    assert ran.returncode == 0, ran.stderr
    assert "done" in ran.stdout


def make_talker() -> Talker:
    from slowwave.lab.bench.kills import make_talker

    return make_talker()


def take_all_room(disk: Path) -> None:
    with (disk / "others").open("ab", buffering=0) as file:
        for size in (1 << 12, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC


def fill_and_delete(disk: Path) -> None:
    talker, directory = make_talker(), disk / "store"
    fill(directory, talker, "ann", "bob", "cid")
    with Store(directory) as store, store.open("cid", talker) as session:
        for _ in range(60):  # a ledger that is larger than the reserve
            session.read("x", source="xyzzy." * 1500)
    size = (directory / "catalogue.sqlite").stat().st_size

    assert size > 2 * catalogue_database.RESERVE_NBYTES, size
    for gone, left in (("cid", ["ann", "bob"]), ("ann", ["bob"])):
        take_all_room(disk)
        with Store(directory) as store:
            assert look(store, talker, "bob") == sorted([gone, *left])
            with pytest.raises(OSError, match="the disk is full"):
                store.fork("bob", "dan")
            store.delete(gone)
            assert [info.name for info in store.sessions()] == left
            assert store.is_wiped()
        content = (directory / "catalogue.sqlite").read_bytes()
        assert b"xyzzy" not in content and len(content) < size
        assert (directory / RESERVE).stat().st_size == catalogue_database.RESERVE_NBYTES
    (directory / RESERVE).unlink()  # as in a store from before there was one
    take_all_room(disk)
    with Store(directory) as store:
        assert look(store, talker, "bob") == ["bob"]
        with pytest.raises(OSError, match="the disk is full"):
            store.delete("bob")
    (disk / "others").unlink()
    with Store(directory) as store, store.open("bob", talker) as session:
        session.read("On.")


def mount_read_only(disk: Path) -> None:
    talker, directory = make_talker(), disk / "another"
    fill(directory, talker, "ann")
    for path in (directory / "catalogue.sqlite-shm", directory / "catalogue.sqlite-wal"):
        assert not path.exists()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with Store(directory) as store:
        assert look(store, talker, "ann") == ["ann"]
        with pytest.raises(OSError, match="read-only"):
            store.delete("ann")
