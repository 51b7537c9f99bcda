"""Sessions whose model runs elsewhere: turns, notes, forgetting and moving, without a model."""

from __future__ import annotations

import contextlib
import sqlite3
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripted_endpoint import obey, scripted
from slowwave.memory.ledger import Entry
from slowwave.memory.names import Damaged, HeldElsewhere, OtherModel, UnknownName
from slowwave.memory.owner import ELSEWHERE, own
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as store:
        yield store


def told(text: str, source: str = "user") -> Entry:
    return Entry(kind="told", time=time.time(), source=source, role="user", text=text, said=text)


def reply(text: str) -> Entry:
    said: dict[str, Any] = {"role": "assistant", "finish": "stop", "text": text, "said": text}
    return Entry(kind="reply", time=time.time(), source="model", **said)


def words(store: Store, name: str = "ann") -> list[str]:
    return [entry.said for entry in store.entries(name)]


def test_turns_are_kept_and_the_last_is_taken_anew(store: Store) -> None:
    with store.open_text("ann", create=True) as session:
        assert (session.num_entries, session.last_turn()) == (0, None)
        with pytest.raises(ValueError, match="no last turn"):
            session.add_turn([told("a")], instead=True)
        session.add_turn([told("a"), reply("A")])
        session.add_turn([told("b"), reply("B")])
        found = session.last_turn()
        assert found is not None and found[0] == 2
        assert [entry.said for entry in found[1]] == ["b", "B"]
        session.add_turn([told("c"), reply("C")], instead=True)
        with pytest.raises(HeldElsewhere):
            store.open_text("ann")
    assert words(store) == ["a", "A", "c", "C"]
    with store.open_text("ann") as again:
        assert [entry.said for entry in again.ledger()] == ["a", "A", "c", "C"]
    assert store.info("ann").model == ELSEWHERE and store.is_wiped()
    assert b"b" not in [path.read_bytes() for path in (store.directory / "states").iterdir()]


def test_a_session_is_of_one_kind(store: Store, talker: Talker) -> None:
    store.open("local", talker, create=True).close()
    with pytest.raises(OtherModel, match="by a model on this machine"):
        store.open_text("local", create=True)
    store.open("local", talker).close()  # the lock was let go
    with pytest.raises(UnknownName):
        store.open_text("ann")
    store.open_text("ann", create=True).close()
    with pytest.raises(OtherModel, match="another model"):
        store.open("ann", talker)


def test_forgetting_takes_notes_and_episodes_along(store: Store) -> None:
    with store.open_text("ann", create=True) as session:
        session.add_turn([told("I live in Rome.", "first"), reply("Rome it is.")])
        session.add_turn([told("I drink tea.", "second")])
    with scripted(rule=obey) as script:
        store.notebook("ann").sleep(script.endpoint())
    store.snapshot("ann", "monday")
    recalled = store.notebook("ann").recall()
    assert recalled.block == "Ann lives in Rome.\nAnn likes tea."
    assert [each.source for each in recalled.episodes] == ["first", "second"]
    assert [said for _, said in recalled.said] == words(store)
    with store.open_text("ann") as session:
        session.forget(session.preview_forgetting(sources=["first"]))
        assert [entry.said for entry in session.ledger()] == ["I drink tea."]
    recalled = store.notebook("ann").recall()
    assert (recalled.block, [each.source for each in recalled.episodes]) == ("", ["second"])
    assert store.info("ann").snapshots == ()  # it had what is forgotten
    assert b"Rome" not in (store.directory / "catalogue.sqlite").read_bytes()


def test_what_a_model_is_shown_lacks_the_words_of_forgotten_episodes(store: Store) -> None:
    with store.open_text("ann", create=True) as session:
        session.add_turn([told("I live in Rome, and drink tea.")])
    book = store.notebook("ann")
    with scripted(rule=obey) as script:
        book.sleep(script.endpoint())
    book.forget(next(each.id for each in book.episodes() if "Rome" in each.statement))
    ((_, said),) = book.recall().said
    assert said == "I live in [forgotten], and drink tea."
    assert book.recall(stop=0).said == []


def test_it_is_exported_forked_and_moved_to_a_model_of_this_machine(
    store: Store, talker: Talker, tmp_path: Path
) -> None:
    with store.open_text("ann", create=True) as session:
        session.add_turn([told("a"), reply("A")])
    store.snapshot("ann", "monday")
    with store.open_text("ann") as session:
        session.add_turn([told("b"), reply("B")])
    store.export("ann", tmp_path / "ann.session")
    info = store.import_session(tmp_path / "ann.session", "again")
    assert (info.model, [each.name for each in info.snapshots]) == (ELSEWHERE, ["monday"])
    assert store.entries("again") == store.entries("ann")
    assert store.entries("again@monday") == store.entries("ann")[:2]
    store.fork("ann@monday", "fork")
    store.rollback("ann", "monday")
    assert words(store) == words(store, "fork") == ["a", "A"]
    store.resleep("ann", "here", talker)
    assert words(store, "here") == ["a", "A"]
    store.open("here", talker).close()


def test_an_exported_one_with_tokens_is_rejected(store: Store, tmp_path: Path) -> None:
    with store.open_text("ann", create=True) as session:
        session.add_turn([told("a")])
    store.export("ann", tmp_path / "ann.session")
    content = (tmp_path / "ann.session").read_bytes()
    assert content.count(b'"tokens":[]') == 1

    with zipfile.ZipFile(tmp_path / "bad.session", "w") as archive:
        with zipfile.ZipFile(tmp_path / "ann.session") as found:
            text = found.read("session.json").replace(b'"tokens":[]', b'"tokens":[1]')
        archive.writestr("session.json", text)
    with pytest.raises(ValueError, match="yet it has tokens"):
        store.import_session(tmp_path / "bad.session", "bad")
    assert store.names() == ["ann"]


def test_a_point_that_lacks_its_state_is_not_exported(
    store: Store, talker: Talker, tmp_path: Path
) -> None:
    with store.open_text("ann", create=True) as session:
        session.add_turn([told("a")])
    model = own(talker, None).model
    with contextlib.closing(sqlite3.connect(store.directory / "catalogue.sqlite")) as db, db:
        db.execute("UPDATE sessions SET model = ?", (model,))
    with pytest.raises(Damaged, match="a point lacks its state"):
        store.export("ann", tmp_path / "ann.session")
