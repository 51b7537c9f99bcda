"""What was deleted is nowhere on disk: not in the log, in moved rows, in files without a name."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slowwave.memory.catalogue import Catalogue
from slowwave.memory.catalogue_rows import Reached, Step
from slowwave.memory.ledger import Entry
from slowwave.memory.leftovers import Leftovers
from slowwave.memory.owner import Owner
from slowwave.memory.replay import resleep
from slowwave.memory.session import Session
from slowwave.memory.session_file import Node, SessionFile, pack_session, read_session_file
from slowwave.memory.store import Store
from slowwave.memory.stored_session import StoredSession
from slowwave.memory.talker import Talker
from slowwave.memory.turn import finish, say
from slowwave.runtime.config import ChatFormat
from slowwave.sleep.config import SleepConfig

SECRET = "xyzzy plugh"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as store:
        yield store


def begin(store: Store, talker: Talker, name: str = "ann") -> StoredSession:
    return store.open(name, talker, create=True)


def tell(session: StoredSession) -> None:
    """The window is left open, so that the state has the tokens of what was said last."""
    session.read("Hello there.")
    session.read(SECRET, source="letters")


def forget(session: StoredSession) -> None:
    session.forget(session.preview_forgetting(sources=["letters"]))


def find_traces(directory: Path) -> list[str]:
    """The files that have the secret, or the end of it as tokens."""
    end = [*SECRET.encode()][-5:]
    wanted = [SECRET.encode(), np.array(end, "<u4").tobytes(), np.array(end, "<i8").tobytes()]
    files = [path for path in directory.rglob("*") if path.is_file()]
    contents = {path.name: path.read_bytes() for path in files}
    return sorted(name for name, content in contents.items() if any(w in content for w in wanted))


def copy_at(patch: pytest.MonkeyPatch, owner: type, method: str, store: Store, to: Path) -> None:
    """Copies the store when a method is called: what a kill at that moment would leave."""
    call: Callable[..., object] = getattr(owner, method)

    def copy_first(*args: object, **named: object) -> object:
        if not to.exists():
            shutil.copytree(store.directory, to)
        return call(*args, **named)

    patch.setattr(owner, method, copy_first)


# Readers.


def test_what_another_process_reads_is_wiped_when_it_is_done(store: Store, talker: Talker) -> None:
    with begin(store, talker) as session, begin(store, talker, "bob") as other:
        tell(session)
        reader = sqlite3.connect(store.directory / "catalogue.sqlite")
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM entries").fetchone()
        forget(session)
        assert not session.is_wiped() and not store.is_wiped()
        assert find_traces(store.directory)
        other.read("Nothing to do with it.")
        assert not store.is_wiped()
        reader.close()
        other.read("But this turn can.")
        assert session.is_wiped() and store.is_wiped()
        assert find_traces(store.directory) == []


def test_a_reader_may_come_while_it_is_wiped(store: Store, talker: Talker) -> None:
    reader, rewrite = sqlite3.connect(store.directory / "catalogue.sqlite"), Catalogue.rewrite_file

    def read_first(catalogue: Catalogue) -> None:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM entries").fetchone()
        rewrite(catalogue)

    with begin(store, talker) as session:
        tell(session)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Catalogue, "rewrite_file", read_first)
            forget(session)
        assert not store.is_wiped()
        reader.close()
        session.read("On.")
        assert store.is_wiped()
        assert find_traces(store.directory) == []


@pytest.mark.parametrize("way", ["a turn", "opening", "closing"])
def test_another_process_wipes_what_one_could_not(store: Store, talker: Talker, way: str) -> None:
    """As a server does for a command that forgot while the server was reading, or the reverse."""
    with begin(store, talker, "bob") as server:
        reader = sqlite3.connect(store.directory / "catalogue.sqlite")
        with Store(store.directory) as command:
            with begin(command, talker) as session:
                tell(session)
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM entries").fetchone()
                forget(session)
            assert not command.is_wiped()
            if way == "closing":
                reader.close()
        reader.close()
        if way == "a turn":
            assert not store.is_wiped()
            server.read("Hello.")
        elif way == "opening":
            Store(store.directory).close()
        assert store.is_wiped()
        assert find_traces(store.directory) == []


def test_a_wipe_is_not_taken_for_a_later_one(store: Store, talker: Talker) -> None:
    """Somebody deletes while another wipes: what was deleted in between is still to be wiped."""
    with begin(store, talker) as session, begin(store, talker, "bob") as other:
        tell(session)
        other.read("Hello.")
        with pytest.MonkeyPatch.context() as patch:
            rewrite = Catalogue.rewrite_file

            def delete_meanwhile(database: Catalogue) -> None:
                rewrite(database)
                patch.undo()
                patch.setattr(Leftovers, "clear", lambda *_: None)
                forget(session)
                patch.undo()

            patch.setattr(Catalogue, "rewrite_file", delete_meanwhile)
            other.forget(other.preview_forgetting(places=[0]))
        other.read(
            "Its turn wipes the catalogue, and cannot know what the holder is about to name."
        )
        assert [name.split("-")[0] for name in find_traces(store.directory)] == ["1"]
        assert not store.is_wiped()
        session.read("Hello again.")
        assert store.is_wiped()
        assert find_traces(store.directory) == []


def test_a_turn_that_was_taken_anew_leaves_no_trace(store: Store, talker: Talker) -> None:
    with begin(store, talker) as session:
        session.read("Hello there.")
        session.read(SECRET)
        again = [say(talker.tokenizer, ChatFormat(), "user", "Nothing.", "user")]
        finish(session.take_turn(again, max_new_tokens=0, instead=True))
        assert [entry.said for entry in session.ledger()] == ["", "Nothing."]
        assert session.is_wiped()
        assert find_traces(store.directory) == []


# Kills and failures.


@pytest.mark.parametrize("what", ["forget", "delete", "drop", "rollback"])
@pytest.mark.parametrize("step", ["clear", "collect", "wipe", "rewrite_file"])
def test_a_kill_while_deleting_leaves_it_to_the_next_opening(
    tmp_path: Path,
    store: Store,
    talker: Talker,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    step: str,
) -> None:
    image = tmp_path / "image"
    with begin(store, talker) as session:
        session.snapshot("new")
        tell(session)
        if what == "drop":
            session.snapshot("told")
            session.rollback("new")
        copy_at(monkeypatch, Leftovers if step == "clear" else Catalogue, step, store, image)
        if what == "forget":
            forget(session)
        elif what == "drop":
            session.drop_snapshot("told")
        elif what == "rollback":
            session.rollback("new")
    if what == "delete":
        monkeypatch.undo()
        copy_at(monkeypatch, Leftovers if step == "clear" else Catalogue, step, store, image)
        store.delete("ann")
    monkeypatch.undo()
    assert find_traces(store.directory) == []
    assert find_traces(image) or step == "rewrite_file"
    with Store(image) as killed:
        assert killed.is_wiped()
        assert find_traces(image) == []
        names = [info.name for info in killed.sessions()]
        assert names == ([] if what == "delete" else ["ann"])
        assert killed.measure().leftovers == 0


@pytest.mark.parametrize("what", ["import_session", "resleep"])
def test_a_killed_import_or_resleep_leaves_no_state(
    tmp_path: Path, store: Store, talker: Talker, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    image, file = tmp_path / "image", tmp_path / "ann.memory"
    with begin(store, talker) as session:
        tell(session)
    store.export("ann", file)
    copy_at(monkeypatch, Catalogue, "plant", store, image)
    copy_at(monkeypatch, Catalogue, "advance", store, image)
    if what == "resleep":
        store.resleep("ann", "bob", talker)
    else:
        store.import_session(file, "bob")
    monkeypatch.undo()
    before = len([*(store.directory / "states").glob("1-*")])
    assert len([*(image / "states").iterdir()]) == before + 1
    with Store(image) as killed:
        assert len([*(image / "states").iterdir()]) == before
        with killed.open("ann", talker) as session:
            forget(session)
        assert find_traces(image) == []


@pytest.mark.parametrize("what", ["import_session", "resleep", "rebuild"])
def test_what_fails_leaves_no_state(
    tmp_path: Path, store: Store, talker: Talker, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    with begin(store, talker) as session:
        tell(session)
    store.export("ann", tmp_path / "ann.memory")
    states = store.directory / "states"
    if what == "rebuild":
        for path in states.iterdir():
            path.write_bytes(b"damaged")
    before = sorted(states.iterdir())

    def fail(*_: object) -> None:
        raise OSError("the disk fails")

    for method in ("plant", "advance", "replace_file"):
        monkeypatch.setattr(Catalogue, method, fail)
    with pytest.raises(OSError, match="the disk fails"):
        match what:
            case "import_session":
                store.import_session(tmp_path / "ann.memory", "bob")
            case "resleep":
                store.resleep("ann", "bob", talker)
            case _:
                store.rebuild("ann", talker)
    assert sorted(states.iterdir()) == before
    assert [info.name for info in store.sessions()] == ["ann"]


def test_an_import_that_fails_at_its_end_leaves_no_text(
    tmp_path: Path, store: Store, talker: Talker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is larger than what SQLite keeps in memory of its own accord."""
    begin(store, talker, "eve").close()
    store.export("eve", tmp_path / "eve.memory")
    file = read_session_file(tmp_path / "eve.memory")
    text = f"{SECRET} " * 4096
    tokens = tuple(text.encode())
    entry = Entry(kind="told", time=0.0, source="letters", text=text, tokens=tokens)
    node = Node(before=None, entry=entry, sleeps=())
    manifest = dataclasses.replace(file.manifest, nodes=(node,) * 24)
    (tmp_path / "eve.memory").write_bytes(pack_session(SessionFile(manifest, {})))

    def fail(*_: object) -> None:
        raise OSError("the disk fails")

    monkeypatch.setattr("slowwave.memory.catalogue.move", fail)
    with pytest.raises(OSError, match="the disk fails"):
        store.import_session(tmp_path / "eve.memory", "bob")
    assert store.is_wiped()
    assert find_traces(store.directory) == []


@pytest.mark.parametrize("what", ["forget", "delete", "make anew", "go on"])
def test_a_resleep_brings_nothing_back_that_was_deleted_meanwhile(
    store: Store, talker: Talker, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    with begin(store, talker) as session:
        tell(session)

    def change_meanwhile(*arguments: Any) -> Session:
        with Store(store.directory) as other:
            if what in ("delete", "make anew"):
                other.delete("ann")
            if what != "delete":
                with begin(other, talker) as session:
                    forget(session) if what == "forget" else session.read("On.")
        return resleep(*arguments)

    monkeypatch.setattr("slowwave.memory.store.resleep", change_meanwhile)
    if what == "go on":
        assert store.resleep("ann", "bob", talker).num_entries == 2
        return
    with pytest.raises(ValueError, match=r"was deleted from 'ann' while|no session 'ann'"):
        store.resleep("ann", "bob", talker)
    assert [info.name for info in store.sessions()] == ([] if what == "delete" else ["ann"])
    assert find_traces(store.directory) == []


def test_a_state_that_is_about_to_be_named_is_left_alone(store: Store, talker: Talker) -> None:
    """An import writes its files within the transaction that names them."""
    begin(store, talker).close()
    states = store.directory / "states"
    with Store(store.directory) as importer:
        with importer._catalogue.writing():
            (states / "2-0a1b.safetensors").touch()
            Store(store.directory).close()  # waits for nobody
            assert [path.name for path in states.iterdir()] == ["2-0a1b.safetensors"]
        Store(store.directory).close()
        assert [*states.iterdir()] == []


def test_a_state_of_a_fork_goes_though_the_session_that_wrote_it_is_open(
    store: Store, talker: Talker
) -> None:
    with begin(store, talker) as session:
        tell(session)
        store.fork("ann", "bob")
        session.read("On without it in the window.")
        with begin(store, talker, "bob") as forked:
            forget(forked)
            assert forked.is_wiped()
        forget(session)
        assert find_traces(store.directory) == []


def test_files_that_are_not_of_the_store_stay(store: Store, talker: Talker) -> None:
    names = ("notes.txt", "1-notes.txt", ".safetensors", "x-0a1b.safetensors", "1.lock.old")
    for folder in ("states", "locks"):
        for name in names:
            (store.directory / folder / name).touch()
    with begin(store, talker) as session:
        tell(session)
        forget(session)
    store.delete("ann")
    for folder in ("states", "locks"):
        assert sorted(path.name for path in (store.directory / folder).iterdir()) == sorted(names)


# What is left of rows that were moved.


def test_no_trace_where_a_row_was_before_its_page_was_split(tmp_path: Path) -> None:
    """SQLite overwrites what it deletes, but not copies that it leaves as pages are balanced."""
    lengths = (
        -150,
        -2,
        60,
        1,
        1,
        2,
        -1,
        -1,
        300,
        -12,
        300,
        -150,
        150,
        -150,
        -12,
        -150,
        -2,
        1,
        2,
        12,
    )
    texts = [f"secret {i:04} " * -n if n < 0 else f"others {i} " * n for i, n in enumerate(lengths)]
    entries = [Entry(kind="told", time=0.0, source=text[0], text=text) for text in texts]
    steps = [Step(entry, []) for entry in entries]
    nothing = Reached(f"1-{0:032x}.safetensors", 0, 0, 0)
    path = tmp_path / "catalogue.sqlite"
    catalogue = Catalogue(path)
    row = catalogue.create("ann", Owner("model", "tokenizer", json.dumps(SleepConfig().to_dict())))
    for step in steps:
        row, _ = catalogue.advance(row, [step], nothing)
    kept = [place for place, step in enumerate(steps) if step.entry.source == "o"]
    assert kept[0] > 0  # all that is kept is written anew
    catalogue.rewrite(row, kept, [steps[place] for place in kept], nothing, [])
    catalogue.collect()
    assert catalogue.wipe()
    catalogue.close()
    assert re.findall(rb"secret \d+", path.read_bytes()) == []
    assert len(set(re.findall(rb"others \d+", path.read_bytes()))) == 10


# Who else has it.


def test_copies_that_keep_what_goes_are_named(tmp_path: Path, store: Store, talker: Talker) -> None:
    with begin(store, talker) as session:
        session.read("Hello there.")
        session.snapshot("before")
    store.fork("ann@before", "early")
    store.export("ann", tmp_path / "early")
    with begin(store, talker) as session:
        session.read(SECRET, source="letters")
    store.export("ann", tmp_path / "late")
    store.fork("ann", "forked")
    store.resleep("ann", "reslept", talker)
    store.import_session(tmp_path / "early", "imported early")
    store.import_session(tmp_path / "late", "imported")
    with begin(store, talker) as session:
        shown = session.preview_forgetting(sources=["letters"])
        assert shown.also_in == ("forked", "imported", "reslept")
        assert shown.snapshots == ()
        session.forget(shown)
    for name in shown.also_in:
        with begin(store, talker, name) as session:
            forget(session)
    assert find_traces(store.directory) == []
