"""Notes and episodes of stored sessions: what they keep, and that nothing outlives its source."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripted_endpoint import PLACES, Answer, Script, obey, refuse, scripted
from slowwave.memory.notes_config import NotesConfig
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker


@pytest.fixture
def script() -> Iterator[Script]:
    with scripted(rule=obey) as made:
        yield made


@pytest.fixture
def store(tmp_path: Path, talker: Talker) -> Iterator[Store]:
    """A store with a session that was told three things, from three sources."""
    with Store(tmp_path) as made:
        with made.open("ann", talker, create=True) as session:
            session.read("I live in Rome. ", source="first")
            session.read("I drink tea. ", source="second")
            session.read("Now in Lima. ", source="third")
        yield made


def forget(store: Store, talker: Talker, *sources: str, name: str = "ann") -> None:
    with store.open(name, talker) as session:
        session.forget(session.preview_forgetting(sources=sources))


def statements(store: Store, name: str = "ann", **filters: Any) -> list[str]:
    return [each.statement for each in store.notebook(name).episodes(**filters)]


def test_a_sleep_writes_notes_and_episodes_with_receipts(store: Store, script: Script) -> None:
    book = store.notebook("ann")
    assert (book.block(), book.versions(), book.episodes(), book.num_waiting()) == ("", [], [], 3)
    written = book.sleep(script.endpoint())
    assert (written.outcome, written.why) == ("changed", "")
    assert [each.num_found for each in written.readings] == [1, 1, 1]
    assert book.block() == "\n".join(PLACES.values())
    (version,) = book.versions()
    assert (version.place, version.block, version.receipt) == (2, book.block(), written.notes[0])
    rome, tea, lima = book.episodes(all_=True)
    assert (rome.in_force, lima.in_force, lima.contradicts) == (False, True, (rome.id,))
    assert [each.statement for each in book.episodes()] == [tea.statement, lima.statement]
    entries = store.entries("ann")
    for each, word in zip((rome, tea, lima), ("Rome", "tea", "Lima"), strict=True):
        assert entries[each.place].text[each.start : each.stop] == word
        assert (each.time, each.source) == (entries[each.place].time, entries[each.place].source)
    assert [each.kind for each in (rome, tea, lima)] == ["fact", "preference", "fact"]
    assert statements(store, kind="preference") == ["Ann likes tea."]
    assert statements(store, containing="LIMA") == ["Ann lives in Lima."]
    assert statements(store, containing="second") == ["Ann likes tea."]


def test_what_was_slept_on_is_not_read_again(store: Store, script: Script, talker: Talker) -> None:
    book = store.notebook("ann")
    book.sleep(script.endpoint())
    count = len(script.asked)
    again = book.sleep(script.endpoint())
    assert (again.outcome, len(script.asked), book.num_waiting()) == ("unchanged", count, 0)
    assert again.why == "nothing was said since the last sleep"
    with store.open("ann", talker) as session:
        session.read("Hello. ")
    assert book.num_waiting() == 1
    again = book.sleep(script.endpoint())
    assert (again.outcome, book.num_waiting()) == ("unchanged", 0)
    assert [version.block is None for version in book.versions()] == [False, True]
    assert "Rome" not in script.asked[count]["messages"][1]["content"]


def test_a_failed_sleep_leaves_a_receipt_and_is_tried_again(store: Store, script: Script) -> None:
    book = store.notebook("ann")
    script.answers = [refuse(401, "no")] * 2
    written = book.sleep(script.endpoint())
    assert written.outcome == "failed"
    assert "does not accept the key" in written.why
    assert (book.block(), book.num_waiting(), len(book.versions())) == ("", 3, 1)
    assert book.sleep(script.endpoint()).outcome == "changed"
    assert len(book.episodes(all_=True)) == 3


def test_long_contexts_take_several_rewritings(
    store: Store, talker: Talker, script: Script
) -> None:
    with store.open("ann", talker) as session:
        session.read("tea " * 60)
    book = store.notebook("ann")
    written = book.sleep(script.endpoint(), NotesConfig(context_characters=100, episodes=False))
    assert len(written.notes) == 4
    assert [version.place for version in book.versions()] == [2, 3, 3, 3]
    assert written.readings == book.episodes() == []
    shown = [each["messages"][1]["content"].split("</text>")[0] for each in script.asked]
    assert sum(text.count("tea") for text in shown if "<text>" in text) >= 61


# Forgetting.


def test_forgetting_a_source_takes_its_episodes_and_the_notes_that_saw_it(
    store: Store, talker: Talker, script: Script, tmp_path: Path
) -> None:
    book = store.notebook("ann")
    with store.open("bob", talker, create=True) as session:
        session.read("Lima.")
    store.fork("ann", "early")
    store.notebook("early").sleep(script.endpoint())
    book.sleep(script.endpoint())
    with store.open("ann", talker) as session:
        session.read("Hello. ", source="fourth")
    book.sleep(script.endpoint())
    forget(store, talker, "third")
    assert [each.statement for each in book.episodes()] == ["Ann lives in Rome.", "Ann likes tea."]
    assert [each.place for each in book.episodes()] == [0, 1]
    assert (book.block(), book.versions(), book.num_waiting()) == ("", [], 3)
    with store._catalogue.reading() as db:  # nothing hides there because a fork shares the ledger
        sql = "SELECT count(*) FROM notes JOIN sessions ON session = sessions.id WHERE name = 'ann'"
        assert db.execute(sql).fetchone()[0] == 0
    count = len(script.asked)
    book.sleep(script.endpoint())
    assert book.block() == "Ann lives in Rome.\nAnn likes tea."
    asked = [each["messages"][0]["content"] for each in script.asked[count:]]
    assert not any(system.startswith("List") for system in asked)  # what is kept was read before
    assert "Lima" in store.notebook("early").block()  # a session of its own
    for name in ("early", "bob"):
        store.delete(name)
    assert store.is_wiped()
    content = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"lives in Rome" in content
    assert b"lives in Lima" not in content


def test_notes_from_before_what_is_forgotten_stay(
    store: Store, talker: Talker, script: Script
) -> None:
    book = store.notebook("ann")
    book.sleep(script.endpoint(), NotesConfig(episodes=False))
    before = book.block()
    with store.open("ann", talker) as session:
        session.read("Lima and tea. ", source="late")
    book.sleep(script.endpoint(), NotesConfig())
    forget(store, talker, "late")
    assert (book.block(), len(book.versions())) == (before, 1)


def test_episodes_of_what_comes_after_go_along(
    store: Store, talker: Talker, script: Script
) -> None:
    book = store.notebook("ann")
    book.sleep(script.endpoint())
    forget(store, talker, "first")
    tea, lima = book.episodes(all_=True)
    assert [(each.place, each.source) for each in (tea, lima)] == [(0, "second"), (1, "third")]
    assert (lima.contradicts, lima.in_force) == ((), True)
    assert store.entries("ann")[lima.place].text[lima.start : lima.stop] == "Lima"


def test_rolling_back_and_forking_have_the_notes_of_their_ledger(
    store: Store, talker: Talker, script: Script
) -> None:
    book = store.notebook("ann")
    store.snapshot("ann", "before")
    book.sleep(script.endpoint())
    with store.open("ann", talker) as session:
        session.read("Rome again. ")
    book.sleep(script.endpoint())
    store.fork("ann@before", "bob")
    other = store.notebook("bob")
    assert [each.statement for each in other.episodes()] == ["Ann likes tea.", "Ann lives in Lima."]
    assert (len(other.versions()), len(book.versions())) == (1, 2)
    other.correct(other.episodes()[0].id, "Bob likes tea.")
    assert "Bob likes tea." not in statements(store, all_=True)
    store.rollback("ann", "before")
    assert len(book.versions()) == 1
    store.delete("ann")
    assert "Bob likes tea." in statements(store, "bob")


def test_the_last_turn_taken_anew_takes_its_episodes_along(
    store: Store, talker: Talker, script: Script
) -> None:
    book = store.notebook("ann")
    book.sleep(script.endpoint())
    with store.open("ann", talker) as session:
        told = session.ledger(1, 2)
        for _ in session.take_turn(told, max_new_tokens=0, instead=True):
            pass
    assert sorted(statements(store, all_=True)) == ["Ann likes tea.", "Ann lives in Rome."]
    assert book.block() == ""


# By hand.


def test_a_correction_is_in_force_and_is_told_to_the_notes(store: Store, script: Script) -> None:
    book = store.notebook("ann")
    book.sleep(script.endpoint())
    tea = book.episodes(kind="preference")[0]
    new = book.correct(tea.id, "Ann likes\ncoffee. ")
    assert (new.statement, new.corrects, new.confidence) == ("Ann likes coffee.", (tea.id,), 1.0)
    assert (new.place, new.start, new.stop, new.kind) == (tea.place, tea.start, tea.stop, tea.kind)
    assert "Ann likes tea." in statements(store, all_=True)
    assert "Ann likes tea." not in statements(store)
    assert book.num_waiting() == 1
    count = len(script.asked)
    book.sleep(script.endpoint())
    assert "Correction: Ann likes coffee." in script.asked[count]["messages"][1]["content"]
    assert book.num_waiting() == 0
    for id_, text, words in (
        (tea.id, "Ann likes milk.", "is not in force"),
        (10**6, "Ann likes milk.", "no episode 1000000"),
        (new.id, " ", "has 0 characters"),
        (new.id, "x" * 501, "has 501 characters"),
    ):
        with pytest.raises(ValueError, match=words):
            book.correct(id_, text)


def test_a_forgotten_episode_is_not_read_again(
    store: Store, script: Script, tmp_path: Path
) -> None:
    book = store.notebook("ann")
    book.sleep(script.endpoint())
    tea = book.episodes(kind="preference")[0]
    book.forget(tea.id)
    assert "Ann likes tea." not in statements(store, all_=True)
    assert (book.block(), book.versions()) == ("", [])
    count = len(script.asked)
    book.sleep(script.endpoint())
    assert book.block() == "Ann lives in Rome.\nAnn lives in Lima."
    assert not any("tea" in str(each) for each in script.asked[count:])
    assert "[forgotten]" in str(script.asked[count])
    with pytest.raises(ValueError, match="no episode"):
        book.forget(tea.id)
    assert store.is_wiped()
    content = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"likes tea" not in content


def test_a_forgotten_episode_does_not_come_back_with_another_branch(
    store: Store, talker: Talker, script: Script
) -> None:
    book = store.notebook("ann")
    store.snapshot("ann", "early")
    with store.open("ann", talker) as session:
        session.read("Hello. ")
    book.sleep(script.endpoint())
    store.snapshot("ann", "late")
    store.rollback("ann", "early")
    book.forget(book.episodes(kind="preference")[0].id)
    store.rollback("ann", "late")
    assert (book.block(), book.versions()) == ("", [])


def test_an_episode_that_is_forgotten_while_a_model_writes_is_not_written(
    store: Store, script: Script
) -> None:
    book = store.notebook("ann")

    def answer(body: dict[str, Any]) -> Answer:
        if body["messages"][0]["content"].startswith("You keep") and not forgotten:
            with Store(store.directory) as other:
                tea = other.notebook("ann").episodes(kind="preference")[0]
                forgotten.append(tea.id)
                other.notebook("ann").forget(tea.id)
        return obey(body)

    forgotten = list[int]()
    script.rule = answer
    written = book.sleep(script.endpoint())
    assert (written.outcome, book.block()) == ("failed", "")
    assert book.num_waiting() == 3
    assert book.sleep(script.endpoint()).outcome == "changed"
    assert "tea" not in book.block()


@pytest.mark.parametrize("when", ["meanwhile", "before a piece that fails"])
def test_no_correction_is_lost(store: Store, talker: Talker, script: Script, when: str) -> None:
    """Made during a sleep it is for the next one; a sleep that ends half way has shown it."""
    book = store.notebook("ann")
    book.sleep(script.endpoint())
    (tea,) = book.episodes(kind="preference")
    with store.open("ann", talker) as session:
        session.read("Rome is fine. ")
        session.read("x " * 60)
    quick = NotesConfig(episodes=False, check=False, context_characters=100)
    shown = list[str]()

    def answer(body: dict[str, Any]) -> Answer:
        is_first = not shown
        shown.append(body["messages"][1]["content"])
        if when == "meanwhile" and is_first:
            with Store(store.directory) as other:
                other.notebook("ann").correct(tea.id, "Ann likes coffee.")
        if when != "meanwhile" and "x x" in shown[-1]:
            return refuse(401, "no")
        return obey(body)

    if when != "meanwhile":
        book.correct(tea.id, "Ann likes coffee.")
    script.rule = answer
    book.sleep(script.endpoint(), quick)
    if when == "meanwhile":
        assert book.num_waiting() == 1
        shown.append("")  # nothing is corrected again
        book.sleep(script.endpoint(), quick)
    assert any("Correction: Ann likes coffee." in text for text in shown)
    script.rule = obey
    book.sleep(script.endpoint(), quick)
    assert book.num_waiting() == 0


# Two at once, and files from elsewhere.


def test_what_is_forgotten_while_a_model_writes_is_not_written(
    store: Store, talker: Talker, script: Script
) -> None:
    def answer(body: dict[str, Any]) -> Answer:
        if len(script.asked) == 1:
            with Store(store.directory) as other:
                forget(other, talker, "first", "second", "third")
        return obey(body)

    script.rule = answer
    written = store.notebook("ann").sleep(script.endpoint())
    assert written.outcome == "failed"
    assert "forgotten meanwhile" in written.why
    assert (store.notebook("ann").versions(), store.notebook("ann").episodes()) == ([], [])


def test_of_two_sleeps_at_once_one_is_refused(store: Store, script: Script) -> None:
    quick = NotesConfig(episodes=False, check=False)

    def answer(body: dict[str, Any]) -> Answer:
        if len(script.asked) == 1:
            with Store(store.directory) as other:
                other.notebook("ann").sleep(script.endpoint(), quick)
        return obey(body)

    script.rule = answer
    with pytest.raises(ValueError, match="changed meanwhile; let it sleep again"):
        store.notebook("ann").sleep(script.endpoint(), quick)
    assert len(store.notebook("ann").versions()) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE notes SET receipt = '{}'",
        "UPDATE notes SET block = x'00'",
        "UPDATE notes SET time = -1.0",
        "UPDATE episodes SET kind = 'rumour'",
        "UPDATE episodes SET confidence = 2.0",
        "UPDATE episodes SET start = 9, stop = 3",
        "UPDATE episodes SET statement = 7.5, statement = x'00'",
        "UPDATE links SET kind = 'likes'",
        "UPDATE readings SET receipt = 'no'",
    ],
)
def test_rows_that_this_package_does_not_write_are_damage(
    store: Store, script: Script, statement: str
) -> None:
    store.notebook("ann").sleep(script.endpoint())
    with contextlib.closing(sqlite3.connect(store.directory / "catalogue.sqlite")) as db, db:
        db.execute(statement)
    with pytest.raises(ValueError, match="damaged, or no catalogue"):
        store.notebook("ann").block()
