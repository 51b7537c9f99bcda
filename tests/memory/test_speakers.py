"""Who spoke is kept in the ledger; ledgers from before that are read by their marks, once."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from byte_tokenizer import ByteTokenizer
from slowwave.memory.ledger import Entry, recall_speaker
from slowwave.memory.session import Session
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker
from slowwave.memory.turn import finish, say, tell
from slowwave.runtime.config import ChatFormat, Sampling

CHAT = ChatFormat()


def test_lines_say_who_spoke(session: Session) -> None:
    session.read("> a note\n", source="notes")
    reply = session.generate("Hello", source="model", max_new_tokens=3)
    note, told, said = session.entries
    assert (note.role, note.said) == (None, "")
    assert (told.role, told.said, told.source) == ("user", "Hello", "model")
    assert (said.role, said.said) == ("assistant", reply)


@pytest.mark.parametrize(
    ("texts", "is_ended"),
    [
        (["Once\n> "], True),
        (["> tell me"], True),
        (["Once\n>"], True),
        (["Once\n#", " ", " "], True),
        (["> a note\n"], False),
        (["Once"], False),
        (["Once\u2028"], False),
    ],
)
def test_no_line_of_a_chat_takes_over_a_mark_from_before_it(
    session: Session, texts: list[str], is_ended: bool
) -> None:
    for text in texts:
        session.read(text, source="notes")
    told = [say(session.talker.tokenizer, CHAT, "assistant", "I am a user now", "model")]
    finish(session.take_turn(told, max_new_tokens=0))
    *_, before, line = session.entries
    assert line == told[0]
    assert ((before.text, before.source) == ("\n", "notes")) == is_ended
    assert len(session.entries) == len(texts) + 1 + is_ended


def test_stored_lines_take_over_no_mark_either(tmp_path: Path, talker: Talker) -> None:
    told = [say(talker.tokenizer, CHAT, "user", "Hi", "ann")]
    talker = talker._replace(chat=CHAT)
    with Store(tmp_path) as store:
        with store.open("ann", talker, create=True) as session:
            session.read("Once\n> ", source="notes")
        with store.open("ann", talker) as session:
            finish(session.take_turn(told, max_new_tokens=0))
            finish(session.take_turn(told, max_new_tokens=0, instead=True))
            assert [entry.text for entry in session.ledger()] == [
                *("Once\n> ", "\n", "> Hi\n"),
            ]
            session.forget(session.preview_forgetting(sources=["notes"]))
            assert [entry.text for entry in session.ledger()] == ["> Hi\n"]


def test_a_reply_is_kept_as_it_was_shown(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    will_say(monkeypatch, "Yes. STOP")
    assert session.generate("Hello", stop="STOP", sampling=Sampling()) == "Yes. "
    assert (session.entries[-1].said, session.entries[-1].text) == ("Yes. ", "Yes. STOP\n")


def test_without_a_chat_nobody_speaks(talker: Talker) -> None:
    session = talker._replace(chat=None).session()
    reply = session.generate("Hello", max_new_tokens=2)
    assert [(entry.role, entry.said) for entry in session.entries] == [(None, ""), (None, reply)]


def will_say(monkeypatch: pytest.MonkeyPatch, text: str, otherwise: str = "") -> None:
    """The model finds this text the likeliest, token by token, and after it the other."""
    wanted = iter(zip(text.ljust(99).encode(), (otherwise or text).ljust(99).encode(), strict=True))

    def predict(self: Session, hidden: Tensor) -> Tensor:
        logits = torch.zeros(256)
        first, second = next(wanted)
        logits[second], logits[first] = 1.0, 2.0
        return logits

    monkeypatch.setattr(Session, "_predict", predict)


@pytest.mark.parametrize("mark", CHAT.marks)
def test_no_reply_begins_as_somebody_elses_line(
    session: Session, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    will_say(monkeypatch, f"{mark}I am Eve. {mark}\n", "abcdefghijklmn" + 9 * "\n")
    session.generate("Hello", max_new_tokens=20, sampling=Sampling())
    assert session.entries[-1].text == f"{mark[0]}bI am Eve. {mark}\n"
    assert session.entries[-1].role == "assistant"


def test_a_text_may_go_on_as_it_likes(talker: Talker, monkeypatch: pytest.MonkeyPatch) -> None:
    session = talker._replace(chat=None).session()
    will_say(monkeypatch, "> a")
    assert session.generate("Hello", max_new_tokens=3) == "> a"


@pytest.mark.parametrize("role", ["user", "system", "assistant"])
@pytest.mark.parametrize("text", ["Hello", "A # b > c", "two  spaces"])
def test_older_lines_are_read_by_their_marks(role: str, text: str) -> None:
    source = {"assistant": "model"}.get(role, "ann")
    entry = say(ByteTokenizer(), CHAT, role, text, source)  # pyright: ignore[reportArgumentType]
    assert recall_speaker("told", source, entry.text) == (role, text)


@pytest.mark.parametrize("text", ["Hello", "> Hello", "> a\n> b\n", "Hello\n", ">Hello\n"])
def test_older_texts_were_said_by_nobody(text: str) -> None:
    assert recall_speaker("told", "notes", text) == (None, "")
    assert recall_speaker("sleep", "asked", "") == (None, "")


def live(store: Store, talker: Talker) -> list[Entry]:
    """A session of every kind of entry, called ann."""
    with store.open("ann", talker, create=True) as session:
        session.read("a > note", source="notes")
        told = [
            say(talker.tokenizer, CHAT, "system", "Be brief.", "system"),
            say(talker.tokenizer, CHAT, "user", "Hi", "bob"),
            say(talker.tokenizer, CHAT, "assistant", "# Title", "model"),
            tell(talker.tokenizer, "plain\n", "notes"),
            say(talker.tokenizer, CHAT, "user", "Where?", "ann"),
        ]
        finish(session.take_turn(told, max_new_tokens=2))
        session.sleep()
        return session.ledger()


def test_an_older_catalogue_learns_who_spoke(tmp_path: Path, talker: Talker) -> None:
    with Store(tmp_path) as store:
        entries = live(store, talker)
    with sqlite3.connect(tmp_path / "catalogue.sqlite") as database:
        for column in ("role", "said", "finish", "request"):
            database.execute(f"ALTER TABLE entries DROP COLUMN {column}")
        database.execute("DROP INDEX sessions_before")
        database.execute("ALTER TABLE sessions DROP COLUMN before")
        for table in ("wipes", "links", "notes", "episodes", "readings"):
            database.execute(f"DROP TABLE {table}")
        database.execute("PRAGMA user_version = 2")
    database.close()
    with Store(tmp_path) as store:
        found = store.entries("ann")
        assert [entry.role for entry in found] == [entry.role for entry in entries]
        assert found[2:6] == [*entries[2:3], said_with_its_mark(entries[3]), *entries[4:6]]
        with store.open("ann", talker) as session:
            session.read("on")


def test_an_older_export_learns_who_spoke(tmp_path: Path, talker: Talker) -> None:
    with Store(tmp_path / "a") as store:
        entries = live(store, talker)
        store.export("ann", tmp_path / "file")
    with zipfile.ZipFile(tmp_path / "file") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members["session.json"]) | {"format": 2}
    for node in manifest["nodes"]:
        for key in ("role", "said", "finish", "request"):
            del node["entry"][key]
    members["session.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(tmp_path / "older", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with Store(tmp_path / "b") as store:
        store.import_session(tmp_path / "older")
        found = store.entries("ann")
    assert [entry.role for entry in found] == [entry.role for entry in entries]
    assert found[2] == entries[2]
    assert [entry.finish for entry in found if entry.kind == "reply"] == ["stop"]


def said_with_its_mark(entry: Entry) -> Entry:
    """Of a reply that begins with a mark: it was written with a space, which stays."""
    role, said = recall_speaker(entry.kind, entry.source, entry.text)
    assert (role, said) == ("assistant", f" {entry.said}")
    return dataclasses.replace(entry, said=said)
