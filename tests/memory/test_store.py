"""A store keeps sessions: over restarts, in forks, at snapshots, and without what is forgotten."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ledger_trace import trace
from slowwave.memory.replay import replay
from slowwave.memory.session import Session
from slowwave.memory.sleep_report import SleepReport
from slowwave.memory.store import Store
from slowwave.memory.stored_session import StoredSession
from slowwave.memory.talker import Talker
from slowwave.runtime.config import Sampling
from slowwave.state import MemoryState

DRAWN = Sampling(temperature=1.0, top_k=40)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as store:
        yield store


def start(talker: Talker) -> Session:
    return talker.session(sampling=DRAWN)


def begin(store: Store, talker: Talker, name: str = "ann") -> StoredSession:
    return store.open(name, talker, create=True, sampling=DRAWN)


def live(session: Session) -> None:
    """A few turns, with sleeps within and between."""
    session.read("Ann lives in Lima and likes tea.", source="notes")
    session.generate("Where?", max_new_tokens=9)
    session.read("Bob.", source="letters")
    session.sleep()


def tensors(state: MemoryState) -> list[Tensor]:
    return list(state.tensors().values())


def assert_same(actual: MemoryState, expected: MemoryState) -> None:
    assert (actual.counters.tokens_seen, actual.counters.num_sleeps) == (
        expected.counters.tokens_seen,
        expected.counters.num_sleeps,
    )
    for mine, other in zip(tensors(actual), tensors(expected), strict=True):
        assert torch.equal(mine, other)


def assert_led_to(session: StoredSession, talker: Talker) -> None:
    """The ledger leads to the state."""
    assert_same(session.state, replay(lambda: start(talker), session.ledger()).state)


def state_files(store: Store) -> list[str]:
    return sorted(path.name for path in (store.directory / "states").iterdir())


# Turns.


def test_a_session_goes_on_after_a_restart_as_if_never_stopped(
    store: Store, talker: Talker
) -> None:
    alone = start(talker)
    live(alone)
    with begin(store, talker) as session:
        live(session)
        assert session.entries == session.sleeps == []
        assert session.status() == alone.status()
    with Store(store.directory) as again, begin(again, talker) as session:
        assert_same(session.state, alone.state)
        texts = [(entry.kind, entry.source, entry.tokens) for entry in session.ledger()]
        assert texts == [(entry.kind, entry.source, entry.tokens) for entry in alone.entries]
        assert session.generate("Who?") == alone.generate("Who?")
        assert_same(session.state, alone.state)
        assert_led_to(session, talker)
    assert len(state_files(store)) == 2  # with that before the last turn


def test_the_ledger_is_kept_whole(store: Store, talker: Talker) -> None:
    alone = start(talker)
    seen = []
    with store.open("ann", talker, create=True, sampling=DRAWN, on_sleep=seen.append) as session:
        live(session)
        for entry in session.ledger():
            alone.repeat(entry)
    assert store.entries("ann") == alone.entries
    assert [slept.report for slept in store.sleeps("ann")] == seen
    assert store.provenance("ann") == trace(alone.entries, talker.sleep)
    spans = [(slept.start, slept.stop) for slept in store.sleeps("ann")]
    assert [stop - start for start, stop in spans] == [report.tokens for report in seen]
    info = store.info("ann")
    assert (info.num_entries, info.num_sleeps) == (len(alone.entries), len(seen))
    assert (info.tokens_seen, info.window_fill) == (alone.state.counters.tokens_seen, 0)


def test_a_turn_counts_when_its_reply_is_exhausted_or_closed(store: Store, talker: Talker) -> None:
    with begin(store, talker) as session:
        pieces = session.stream("Hello", max_new_tokens=9)
        next(pieces)
        assert store.entries("ann") == []
        assert session.sleep() is None  # waits for the end of the turn
        assert store.entries("ann") == []
        pieces.close()  # pyright: ignore[reportAttributeAccessIssue]
        assert [entry.kind for entry in store.entries("ann")] == ["told", "reply", "sleep"]
        next(session.stream("Is anyone there?"))  # and nobody holds it
        assert [entry.kind for entry in store.entries("ann")[3:]] == ["told", "reply"]
        held = session.stream("And now?")
        next(held)
    assert [entry.kind for entry in store.entries("ann")[5:]] == ["told", "reply"]
    assert list(held) == []
    with begin(store, talker) as session:
        assert_led_to(session, talker)


def test_what_is_no_turn_leaves_no_trace(store: Store, talker: Talker) -> None:
    with begin(store, talker) as session:
        session.read("Hello")
        before, files = session.state, state_files(store)
        with pytest.raises(ValueError, match="the text is empty"):
            session.read("")
        with pytest.raises(ValueError, match="max_new_tokens is 0"):
            session.generate("Hello", max_new_tokens=0)
        with pytest.raises(ValueError, match="session 'ann' is in a store, whose ledger x is not"):
            session.load("x")
        session.stream("Hello")
        session.fork().read("On a copy.")
        assert (session.state, state_files(store)) == (before, files)
        assert len(store.entries("ann")) == session.status().num_entries == 1


def test_an_interrupted_reply_keeps_what_was_read(store: Store, talker: Talker) -> None:
    seen = list[SleepReport]()

    def interrupt(report: SleepReport) -> None:
        seen.append(report)
        if len(seen) == 1:
            raise KeyboardInterrupt

    with store.open("ann", talker, create=True, sampling=DRAWN, on_sleep=interrupt) as session:
        with pytest.raises(KeyboardInterrupt):
            session.generate("H", max_new_tokens=100)
        assert [entry.kind for entry in store.entries("ann")] == ["told", "reply"]
        assert_led_to(session, talker)


def test_a_closed_session_is_done(store: Store, talker: Talker) -> None:
    session = begin(store, talker)
    session.read("Hello")
    session.close()
    for call in (
        lambda: session.read("more"),
        lambda: session.generate("more"),
        lambda: session.snapshot("now"),
    ):
        with pytest.raises(ValueError, match="session 'ann' is closed; open it again"):
            call()


# Names.


def test_names(store: Store, talker: Talker) -> None:
    with begin(store, talker, "Großmutter 1") as session:
        session.snapshot("vor dem Tee")
    begin(store, talker, "bob").close()
    assert [info.name for info in store.sessions()] == ["Großmutter 1", "bob"]
    for call in (
        lambda: store.info("cy"),
        lambda: store.entries("cy@then"),
        lambda: store.open("cy", talker),
        lambda: store.fork("cy", "dan"),
        lambda: store.delete("cy"),
        lambda: store.export("cy", "file"),
    ):
        with pytest.raises(ValueError, match="no session 'cy'; there are Großmutter 1, bob"):
            call()
    with pytest.raises(ValueError, match="no snapshot 'x'; there are vor dem Tee"):
        store.entries("Großmutter 1@x")
    with pytest.raises(ValueError, match="no snapshot 'x'; there are none"):
        store.entries("bob@x")
    with pytest.raises(ValueError, match="session 'bob' is there already; choose another name"):
        store.fork("Großmutter 1", "bob")
    for name in ("", " a", "a@b", "a\nb", "x" * 129, "a/b", "../x", ".", "-x", "a\\b"):
        with pytest.raises(ValueError, match=r"session name .* is unfit; use 1 to 128 printable"):
            begin(store, talker, name)


# Forks, snapshots, differences.


def test_not_all_of_many_sessions_are_listed(store: Store, talker: Talker) -> None:
    for i in range(25):
        begin(store, talker, f"ann{i:02}").close()
    with pytest.raises(
        ValueError, match=r"no session 'cy'; there are ann00, .*, ann19 and 5 more$"
    ):
        store.info("cy")


def test_forks_share_the_past_and_go_their_own_ways(store: Store, talker: Talker) -> None:
    with begin(store, talker) as session:
        live(session)
        before = store.measure()
        info = store.fork("ann", "bob")  # while it is open
        assert (info.name, info.tokens_seen) == ("bob", session.state.counters.tokens_seen)
        assert store.measure().heads == before.heads
        session.read("Only Ann.")
        with begin(store, talker, "bob") as fork:
            fork.read("Only Bob.")
            fork.read("Again.")
            assert_led_to(fork, talker)
        session.read("More.")
        assert_led_to(session, talker)
    assert store.entries("ann")[:-2] == store.entries("bob")[:-2]
    assert len(state_files(store)) == 4  # of each, with that before the last turn
    difference = store.diff("ann", "bob")
    assert [entry.text for entry in difference.only_first] == ["Only Ann.", "More."]
    assert [entry.text for entry in difference.only_second] == ["Only Bob.", "Again."]
    assert len(difference.changes) == 2
    assert all(change > 0 for change in difference.changes)
    assert store.diff("ann", "ann").changes == (0, 0)


def test_there_and_back(store: Store, talker: Talker) -> None:
    with begin(store, talker) as session:
        session.snapshot("start")
        live(session)
        session.snapshot("monday")
        monday = session.state
        session.read("Something to be sorry for.")
        session.snapshot("tuesday")
        tuesday = session.state
        with pytest.raises(ValueError, match="snapshot 'monday' is there already; choose another"):
            session.snapshot("monday")
        session.rollback("monday")
        assert_same(session.state, monday)
        assert_led_to(session, talker)
        session.read("Another way.")
        assert_led_to(session, talker)
        session.rollback("tuesday")
        assert_same(session.state, tuesday)
        assert_led_to(session, talker)
        assert len(state_files(store)) == 2  # the other way is gone
        session.rollback("start")
        assert session.status().num_entries == session.state.tokens_seen == 0
        session.rollback("tuesday")
        for name in ("monday", "start"):
            session.drop_snapshot(name)
        with pytest.raises(ValueError, match="no snapshot 'monday'; there are tuesday"):
            session.rollback("monday")
    assert len(state_files(store)) == 1
    assert [mark.name for mark in store.info("ann").snapshots] == ["tuesday"]
    fork = store.fork("ann@tuesday", "bob")
    assert fork.tokens_seen == tuesday.tokens_seen
    store.delete("ann")
    with begin(store, talker, "bob") as session:
        assert_same(session.state, tuesday)
        assert_led_to(session, talker)
    store.delete("bob")
    assert state_files(store) == []
    assert store.sessions() == []


def test_snapshots_need_no_model(store: Store, talker: Talker) -> None:
    with begin(store, talker) as session:
        session.read("Ann lives in Lima.")
        monday = session.state
        with pytest.raises(ValueError, match=r"session 'ann' is open in process"):
            store.snapshot("ann", "monday")
    assert store.snapshot("ann", "monday").point.tokens_seen == monday.tokens_seen
    with begin(store, talker) as session:
        session.read("Something to be sorry for.")
        for change in (store.rollback, store.drop_snapshot):
            with pytest.raises(ValueError, match=r"session 'ann' is open in process"):
                change("ann", "monday")
    with pytest.raises(ValueError, match="no snapshot 'sunday'; there are monday"):
        store.rollback("ann", "sunday")
    assert store.rollback("ann", "monday").tokens_seen == monday.tokens_seen
    assert len(state_files(store)) == 1
    with begin(store, talker) as session:
        assert_same(session.state, monday)
        assert_led_to(session, talker)
        session.read("On.")
    kept = store.info("ann").snapshots[0].point.file
    assert kept is not None
    (store.directory / "states" / kept).write_bytes(b"cut")
    with pytest.raises(ValueError, match="truncated or not a memory file"):
        store.rollback("ann", "monday")
    store.drop_snapshot("ann", "monday")
    assert store.info("ann").snapshots == ()
    assert len(state_files(store)) == 2  # it was where the last turn began


def test_what_was_never_read_has_no_fast_weights(store: Store, talker: Talker) -> None:
    with begin(store, talker) as session:
        session.read("Hello")
    begin(store, talker, "bob").close()
    with pytest.raises(ValueError, match="a session that has read nothing has no fast weights"):
        store.diff("ann", "bob")


# Forgetting.


def test_what_is_forgotten_is_gone(store: Store, talker: Talker) -> None:
    with begin(store, talker) as session:
        session.read("Kept from before.")
        session.snapshot("before")
        session.read("The secret is XYZZY.", source="letters")
        session.generate("So?", max_new_tokens=5)
        session.read("Kept from after.")
        session.snapshot("after")
        store.fork("ann", "bob")
        preview = session.preview_forgetting(sources=["letters"])
        assert preview.plan.dropped == (1, 3)
        assert (preview.snapshots, preview.also_in) == (("after",), ("bob",))
        before = session.state
        session.read("The ledger grows.")
        with pytest.raises(ValueError, match="the ledger is not that of the preview; make a new"):
            session.forget(preview)
        assert session.state.counters.tokens_seen > before.counters.tokens_seen
        preview = session.preview_forgetting(sources=["letters"], keep=[3])
        kept = [entry for i, entry in enumerate(session.ledger()) if i != 1]
        session.forget(preview)
        assert session.ledger() == kept
        assert_led_to(session, talker)
        assert store.provenance("ann") == trace(session.ledger(), talker.sleep)
        assert [mark.name for mark in store.info("ann").snapshots] == ["before"]
        session.generate("Still there?")
        assert_led_to(session, talker)
        assert find_on_disk(store, b"XYZZY")  # the fork has it
    with begin(store, talker, "bob") as fork:
        fork.forget(fork.preview_forgetting(places=[1]))
        assert_led_to(fork, talker)
    assert not find_on_disk(store, b"XYZZY")


def find_on_disk(store: Store, text: bytes) -> bool:
    tokens = b"".join(bytes([byte, 0, 0, 0]) for byte in text)
    contents = [path.read_bytes() for path in store.directory.glob("catalogue*")]
    return any(text in content or tokens in content for content in contents)


def test_nothing_to_forget(store: Store, talker: Talker) -> None:
    with begin(store, talker) as session:
        for call in (session.preview_forgetting, lambda: session.preview_forgetting(places=[0])):
            with pytest.raises(ValueError, match="there is nothing to forget; name sources or"):
                call()
        session.read("Hello")
        with pytest.raises(ValueError, match="nothing is from source 'x'; there are user"):
            session.preview_forgetting(sources=["x"])


# Another model.


def test_settings_from_before_a_field_existed_are_known_again(store: Store, talker: Talker) -> None:
    begin(store, talker).close()
    with contextlib.closing(sqlite3.connect(store.directory / "catalogue.sqlite")) as db, db:
        ((recorded,),) = db.execute("SELECT sleep FROM sessions").fetchall()
        fields = {key: value for key, value in json.loads(recorded).items() if key != "wake_passes"}
        db.execute("UPDATE sessions SET sleep = ?", (json.dumps(fields),))
    begin(store, talker).close()
    more = talker._replace(sleep=dataclasses.replace(talker.sleep, wake_passes=2))
    with pytest.raises(ValueError, match=r"sleep\.wake_passes is 2 here and 1 in the session"):
        begin(store, more)


def test_memory_moves_to_another_model(store: Store, talker: Talker) -> None:
    other = talker._replace(sleep=dataclasses.replace(talker.sleep, window=7))
    with begin(store, talker) as session:
        live(session)
    with pytest.raises(
        ValueError, match=r"another sleep \(sleep\.window is 7 here and \d+ in the se"
    ):
        begin(store, other)
    store.resleep("ann", "ann at seven", other)
    with begin(store, other, "ann at seven") as session:
        assert_led_to(session, other)
        assert store.provenance("ann at seven") == trace(session.ledger(), other.sleep)
