"""Full disks, damaged files, interrupts, two processes: nothing acknowledged is lost."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slowwave.memory import catalogue, catalogue_schema, leftovers, state_files
from slowwave.memory.names import Damaged
from slowwave.memory.private_store import SessionLock
from slowwave.memory.store import Store
from slowwave.memory.stored_session import StoredSession
from slowwave.memory.talker import Talker
from slowwave.storage import memory_file


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as store:
        yield store


def begin(store: Store, talker: Talker) -> StoredSession:
    return store.open("ann", talker, create=True)


def state_files_of(store: Store) -> list[Path]:
    return sorted((store.directory / "states").iterdir())


def fill_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "states/1.safetensors")


# Failures between two steps.


class Stop(BaseException):
    """What a kill would be, were it an exception."""


@pytest.mark.parametrize("step", ["state", "begin", "commit", "committed"])
def test_a_turn_is_recorded_whole_or_not_at_all(
    store: Store, talker: Talker, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """An interrupt at any step of recording: session and disk agree about what became of it."""
    with begin(store, talker) as session:
        session.read("Hello")
        ledger = session.ledger()
        with monkeypatch.context() as patch:
            interrupt(patch, step)
            with pytest.raises(Stop):
                session.read("more")
        happened = step == "committed"
        assert session.ledger() == store.entries("ann")
        assert session.ledger()[:1] == ledger
        assert len(session.ledger()) == 1 + happened
        assert session.state.counters.tokens_seen == len("Hello") + happened * len("more")
        assert (session.entries, session.sleeps) == ([], [])
        session.read("and on")
        state = session.state
    assert len(store.entries("ann")) == 2 + happened
    with begin(store, talker) as session:
        assert session.state.counters.tokens_seen == state.counters.tokens_seen
    assert len(state_files_of(store)) == 2  # with that before the last turn


def interrupt(patch: pytest.MonkeyPatch, step: str) -> None:
    def stop(*_: object, **__: object) -> None:
        raise Stop

    move = catalogue.move
    match step:
        case "state":
            patch.setattr(state_files.StateFiles, "save", stop)
        case "begin":
            patch.setattr(catalogue, "append", stop)
        case "commit":
            patch.setattr(catalogue, "move", lambda *a: stop(move(*a)))
        case _:
            advance = catalogue.Catalogue.advance
            patch.setattr(catalogue.Catalogue, "advance", lambda *a, **o: stop(advance(*a, **o)))


@pytest.mark.parametrize("method", ["rewrite", "save"])
def test_forgetting_fails_whole(
    store: Store, talker: Talker, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    with begin(store, talker) as session:
        session.read("Kept.")
        session.read("Dropped.", source="letters")
        preview = session.preview_forgetting(sources=["letters"])
        before, ledger = session.state, session.ledger()
        owner = state_files.StateFiles if method == "save" else catalogue.Catalogue
        with monkeypatch.context() as patch:
            patch.setattr(owner, method, fill_disk)
            with pytest.raises(OSError, match="No space left on device"):
                session.forget(preview)
        assert (session.state, session.ledger()) == (before, ledger)
        assert len(state_files_of(store)) == 2
        session.forget(preview)
        assert len(state_files_of(store)) == 1  # what was before the last turn had it too, perhaps
        assert [entry.text for entry in session.ledger()] == ["Kept."]


def test_leftovers_of_a_kill_go_when_the_session_is_opened(store: Store, talker: Talker) -> None:
    with begin(store, talker) as session:
        session.read("Hello")
    store.open("bob", talker, create=True).close()
    states = store.directory / "states"
    for name in ("1-abc.safetensors", ".1-abc.safetensors.77.draft", "2-abc.safetensors"):
        (states / name).write_bytes(b"1234567")
    (states / "notes.txt").write_bytes(b"1234567")  # is not ours
    assert store.measure().leftovers == 28
    with store.open("bob", talker):
        (states / "2-abc.safetensors").write_bytes(b"1234567")
        begin(store, talker).close()
        assert store.measure().leftovers == 14  # for bob's process may be writing its own
    store.open("bob", talker).close()
    assert (store.measure().leftovers, len(state_files_of(store))) == (7, 2)


# A full disk.


def test_a_full_disk_loses_nothing(
    store: Store, talker: Talker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with begin(store, talker) as session:
        session.read("Hello")
        with monkeypatch.context() as patch:
            patch.setattr(memory_file, "write_atomically", fill_disk)
            with pytest.raises(OSError, match="device: the turn is not recorded and the session"):
                session.read("more")
            with pytest.raises(OSError, match="as before it; make room and say it again"):
                session.generate("more", max_new_tokens=3)
        assert session.state.counters.tokens_seen == 5
        session.read("more")
        assert [entry.text for entry in session.ledger()] == ["Hello", "more"]


def test_a_full_catalogue_loses_nothing(store: Store, talker: Talker) -> None:
    with begin(store, talker) as session:
        session.read("Hello")
        database = store._catalogue._db
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(OSError, match="the disk is full; make room and try again: the turn is"):
            session.read("x" * 2_000)
        assert session.state.counters.tokens_seen == 5
        assert len(state_files_of(store)) == 1
        database.execute("PRAGMA max_page_count = 1000000")
        session.read("x" * 2_000)
        assert session.status().num_entries == 2


# Damaged files.


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_lost_state_is_rebuilt_from_the_ledger(store: Store, talker: Talker, damage: str) -> None:
    with begin(store, talker) as session:
        session.read("Before.")
        session.snapshot("monday")
        session.generate("Hello", max_new_tokens=5)
        before = session.state
    for path in state_files_of(store):
        path.unlink() if damage == "missing" else os.truncate(path, 100)
    with pytest.raises(ValueError, match=r"'ann' lost its state, but not its ledger: rebuild it"):
        begin(store, talker)
    assert store.rebuild("ann", talker) == ["ann", "ann@monday"]
    assert store.rebuild("ann", talker) == []
    with begin(store, talker) as session:
        state = session.state
        assert all(
            bool((mine == theirs).all())
            for mine, theirs in zip(state.fast_weights, before.fast_weights, strict=True)
        )
        assert (state.counters.tokens_seen, state.counters.num_sleeps) == (
            before.counters.tokens_seen,
            before.counters.num_sleeps,
        )
        session.rollback("monday")
        assert session.state.counters.tokens_seen == len("Before.")


def test_a_damaged_catalogue_is_named(tmp_path: Path, talker: Talker) -> None:
    for content in (b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 5000):
        (tmp_path / "catalogue.sqlite").write_bytes(content)
        with pytest.raises(ValueError, match=r"catalogue\.sqlite: damaged, or no catalogue"):
            Store(tmp_path)


def test_a_page_of_the_catalogue_is_damaged(tmp_path: Path, talker: Talker) -> None:
    with Store(tmp_path) as store, begin(store, talker) as session:
        session.read("x" * 2_000)
    path = tmp_path / "catalogue.sqlite"
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    said = r"damaged, or no catalogue .* restore it from a copy"
    with pytest.raises(ValueError, match=said), Store(tmp_path) as store:
        store.entries("ann")


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM wipes",
        "INSERT INTO wipes VALUES (0, 0)",
        "UPDATE wipes SET done = asked + 1",
        "UPDATE wipes SET asked = 9223372036854775807",
        "UPDATE wipes SET asked = 'x'",
    ],
)
def test_a_count_of_wipes_that_is_none(tmp_path: Path, talker: Talker, damage: str) -> None:
    with Store(tmp_path) as store:
        begin(store, talker).close()
    with sqlite3.connect(tmp_path / "catalogue.sqlite") as database:
        database.execute(damage)
    database.close()
    with Store(tmp_path) as store:
        assert [info.name for info in store.sessions()] == ["ann"]
        with pytest.raises(Damaged, match=r"catalogue\.sqlite: damaged, or no catalogue"):
            store.is_wiped()


def test_a_foreign_catalogue_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE theirs (a)")
    database.close()
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not the catalogue of a memory store; name another dir"):
        Store(tmp_path)
    assert path.read_bytes() == before


def test_a_newer_catalogue_is_refused_by_its_number(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / "catalogue.sqlite") as database:
        database.execute("PRAGMA user_version = 7")
    database.close()
    with pytest.raises(ValueError, match="format 7, but this slowwave reads up to 5; use the"):
        Store(tmp_path)


def test_an_older_catalogue_is_migrated(
    tmp_path: Path, talker: Talker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(tmp_path) as store, begin(store, talker) as session:
        session.read("Hello")
    newer = (*catalogue_schema.MIGRATIONS, "ALTER TABLE entries ADD COLUMN mood TEXT;")
    monkeypatch.setattr(catalogue_schema, "MIGRATIONS", newer)
    for _ in range(2):
        with Store(tmp_path) as store:
            database = store._catalogue._db
            assert database.execute("SELECT text, mood FROM entries").fetchall()[0][:] == (
                "Hello",
                None,
            )
            assert database.execute("PRAGMA user_version").fetchone()[0] == len(newer)
    broken = (*newer, "CREATE TABLE more (a); DROP TABLE absent;")
    monkeypatch.setattr(catalogue_schema, "MIGRATIONS", broken)
    with pytest.raises(ValueError, match="no such table: absent"):
        Store(tmp_path)
    monkeypatch.setattr(catalogue_schema, "MIGRATIONS", newer)
    with Store(tmp_path) as store:
        tables = store._catalogue._db.execute("SELECT name FROM sqlite_master").fetchall()
    assert "more" not in [row["name"] for row in tables]


# Two at once.


HOLDER = """
import sys
from pathlib import Path
from slowwave.memory.names import Damaged
from slowwave.memory.private_store import SessionLock
lock = SessionLock(Path(sys.argv[1]), "ann")
print("held", flush=True)
sys.stdin.read()
"""


def test_one_process_a_session(store: Store, talker: Talker) -> None:
    begin(store, talker).close()
    path = store.directory / "locks" / "1.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        named = rf"'ann' is open in process {holder.pid} on \S+ since [-\d]+ [:\d]+ \S+; close it"
        for call in (
            lambda: begin(store, talker),
            lambda: store.delete("ann"),
            lambda: store.rebuild("ann", talker),
        ):
            with pytest.raises(ValueError, match=named):
                call()
        assert store.info("ann").num_entries == 0  # looking is free
        holder.kill()
    begin(store, talker).close()


def test_a_session_is_open_once_in_this_process_too(store: Store, talker: Talker) -> None:
    with (
        begin(store, talker),
        pytest.raises(ValueError, match=f"'ann' is open in process {os.getpid()} on"),
    ):
        begin(store, talker)
    (store.directory / "locks" / "1.lock").write_text("")
    with begin(store, talker) as session:
        (store.directory / "locks" / "1.lock").write_text("")
        with pytest.raises(ValueError, match="session 'ann' is open in another process; close it"):
            begin(store, talker)
        session.read("Hello")


def test_a_session_that_is_made_anew_while_it_is_opened(
    store: Store, talker: Talker, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(store, talker).close()
    take = leftovers.SessionLock

    def replace_first(path: Path, name: str, *, seconds: float) -> SessionLock:
        monkeypatch.setattr(leftovers, "SessionLock", take)
        store.delete("ann")
        begin(store, talker).close()
        return take(path, name, seconds=seconds)

    monkeypatch.setattr(leftovers, "SessionLock", replace_first)
    with pytest.raises(ValueError, match="'ann' was deleted and made anew; open it again"):
        begin(store, talker)
    begin(store, talker).close()


def test_a_session_that_was_moved_behind_its_holder_is_refused(
    store: Store, talker: Talker
) -> None:
    with begin(store, talker) as session:
        session.read("Hello")
        (store.directory / "locks" / "1.lock").unlink()  # a careless hand
        with begin(store, talker) as other:
            other.read("Meanwhile.")
        with pytest.raises(ValueError, match="'ann' was changed from elsewhere; open it again"):
            session.read("more")
    assert [entry.text for entry in store.entries("ann")] == ["Hello", "Meanwhile."]
