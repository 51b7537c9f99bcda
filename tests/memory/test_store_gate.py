"""A gate is part of a stored session: kept, replayed to the bit, and migrated to."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ledger_trace import trace
from slowwave.memory.catalogue_schema import APPLICATION_ID, MIGRATIONS
from slowwave.memory.config import Canary, GateConfig
from slowwave.memory.ledger import Entry
from slowwave.memory.replay import replay
from slowwave.memory.session import Session
from slowwave.memory.sleep_report import SleepReport, Span
from slowwave.memory.store import Store
from slowwave.memory.stored_session import StoredSession
from slowwave.memory.talker import Talker
from slowwave.runtime.config import Sampling
from slowwave.sleep.config import SleepConfig
from slowwave.state import MemoryState

WINDOW = 12
TEXTS = ("A text.",)
REFUSES = GateConfig(
    held_out=TEXTS,
    canaries=(Canary(question="Where?", answer="Lima"),),
    max_median_rise=-9,
    max_new_tokens=3,
)
ACCEPTS = dataclasses.replace(REFUSES, max_median_rise=9)
EITHER = dataclasses.replace(REFUSES, max_median_rise=None, max_canary_nll_rise=0.0)
OTHER = dataclasses.replace(REFUSES, max_median_rise=None, max_mean_rise=0.0)
"""Which reject about every other sleep of a model that knows nothing."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as store:
        yield store


def begin(store: Store, talker: Talker, gate: GateConfig | None = EITHER) -> StoredSession:
    drawn = Sampling(temperature=1.0, top_k=40)
    return store.open("ann", talker, create=True, sampling=drawn, gate=gate)


def live(session: Session) -> None:
    """Turns with sleeps within and between, some of them one after the other."""
    session.read("Ann lives in Lima and likes tea.", source="notes")
    session.sleep()
    for text in ("Where?", "Who?", "And why, if she ever told you?"):
        session.generate(text, max_new_tokens=5)
        for passes in (None, 3, 2):
            if session.state.window_fill:
                session.sleep(passes)
    session.read("Bob.", source="letters")
    session.sleep(trigger="idle")
    session.read("The end of it.")


def tensors(state: MemoryState) -> list[Tensor]:
    return list(state.tensors().values())


def assert_same(actual: MemoryState, expected: MemoryState) -> None:
    assert (actual.counters.tokens_seen, actual.counters.num_sleeps) == (
        expected.counters.tokens_seen,
        expected.counters.num_sleeps,
    )
    for mine, other in zip(tensors(actual), tensors(expected), strict=True):
        assert torch.equal(mine, other)


def plain(report: SleepReport) -> SleepReport:
    """A report without what it took."""
    verdict = report.verdict
    if verdict is not None:
        verdict = dataclasses.replace(verdict, milliseconds=0)
    return dataclasses.replace(report, verdict=verdict, milliseconds=0)


def reports(store: Store, point: str) -> list[SleepReport]:
    return [plain(slept.report) for slept in store.sleeps(point)]


def assert_led_to(store: Store, session: StoredSession, talker: Talker) -> None:
    """The ledger leads to the state, to the verdicts, and to what each sleep consolidated."""
    twin = replay(lambda: talker.session(gate=session.gate), session.ledger())
    assert_same(session.state, twin.state)
    assert reports(store, session.name) == [plain(report) for report in twin.sleeps]
    kinds = [entry.kind for entry in twin.entries]
    called = [report for report in twin.sleeps if report.trigger != "full"]
    asked = [place for place, kind in enumerate(kinds) if kind == "sleep"]
    rejected = [p for p, report in zip(asked, called, strict=True) if report.is_rejected]
    found = store.provenance(session.name)
    assert found == trace(twin.entries, talker.sleep, rejected=rejected)
    sizes = [sum(span.stop - span.start for span in spans) for spans in found.sleeps]
    assert sizes == [report.num_evicted for report in twin.sleeps]
    spans = [(slept.start, slept.stop) for slept in store.sleeps(session.name)]
    assert [stop - start for start, stop in spans] == sizes
    assert sum(span.stop - span.start for span in found.window) == session.state.window_fill


@pytest.mark.parametrize(("eviction", "gate"), [("all", EITHER), ("sliding", OTHER)])
def test_a_session_with_a_gate_is_led_to_by_its_ledger(
    store: Store, talker: Talker, eviction: str, gate: GateConfig
) -> None:
    sleep = {"window": WINDOW, "passes": 2, "eviction": eviction}
    talker = talker._replace(sleep=SleepConfig.from_dict(sleep))
    alone = talker.session(gate=gate)
    alone.sampling = Sampling(temperature=1.0, top_k=40)
    live(alone)
    with begin(store, talker, gate) as session:
        live(session)
        assert_same(session.state, alone.state)
        assert_led_to(store, session, talker)
    kinds = {(report.trigger == "full", report.is_rejected) for report in alone.sleeps}
    assert kinds == {(full, rejected) for full in (True, False) for rejected in (True, False)}
    with store.open("ann", talker) as session:
        assert session.gate == gate
        assert_same(session.state, alone.state)
        session.read("On and on and on.")
        assert_led_to(store, session, talker)


def test_a_rejected_sleep_consolidates_nothing(store: Store, talker: Talker) -> None:
    with begin(store, talker, REFUSES) as session:
        session.read("x" * (WINDOW + 3))
        session.read("yy")
        session.sleep()
        session.sleep()
        session.read("z" * WINDOW)
    first, *others, last = store.sleeps("ann")
    assert [(s.start, s.stop) for s in others] == [(WINDOW, WINDOW), (WINDOW, WINDOW)]
    assert [(s.start, s.stop) for s in (first, last)] == [(0, WINDOW), (WINDOW, 2 * WINDOW)]
    assert [s.report.number for s in (first, *others, last)] == [1, 2, 2, 2]
    assert all(s.report.is_rejected for s in (first, *others, last))
    found = store.provenance("ann")
    assert found.sleeps == [
        [Span(0, 0, WINDOW)],
        [],
        [],
        [Span(0, WINDOW, WINDOW + 3), Span(1, 0, 2), Span(4, 0, 7)],
    ]
    assert found.window == [Span(4, 7, WINDOW)]
    assert store.info("ann").num_sleeps == 2


def test_a_session_keeps_its_gate(store: Store, talker: Talker) -> None:
    begin(store, talker).close()
    assert store.gate("ann") == EITHER
    for gate in (None, EITHER):
        with begin(store, talker, gate) as session:
            assert session.gate == EITHER
    with pytest.raises(
        ValueError, match=r"made with another gate \(gate\.\w+ is .* in the session"
    ):
        begin(store, talker, ACCEPTS)
    with store.open("bob", talker, create=True) as bob:
        assert bob.gate is store.gate("bob") is None
    with pytest.raises(ValueError, match="session 'bob' was made with no gate; open it without"):
        store.open("bob", talker, gate=ACCEPTS)
    never = talker._replace(sleep=SleepConfig(window=WINDOW, eviction="none"))
    with pytest.raises(ValueError, match=r"there is a gate, but sleep\.eviction is none"):
        store.open("eve", never, create=True, gate=ACCEPTS)
    assert [info.name for info in store.sessions()] == ["ann", "bob"]


def test_forks_snapshots_and_rollbacks_keep_the_gate(store: Store, talker: Talker) -> None:
    with begin(store, talker) as session:
        session.read("Ann lives in Lima.")
        session.snapshot("monday")
        live(session)
        store.fork("ann", "eve")
        session.rollback("monday")
        live(session)
        assert_led_to(store, session, talker)
    with store.open("eve", talker) as fork:
        assert fork.gate == EITHER
        assert_led_to(store, fork, talker)
        live(fork)
        assert_led_to(store, fork, talker)


def test_forgetting_with_a_gate(store: Store, talker: Talker) -> None:
    """The rest is judged anew: verdicts are those of a session that was given it alone."""
    with begin(store, talker) as session:
        session.read("Kept.")
        session.sleep()
        live(session)
        session.forget(session.preview_forgetting(sources=["notes"]))
        assert_led_to(store, session, talker)
        assert {report.is_rejected for report in reports(store, "ann")} == {True, False}


def test_a_lost_state_is_rebuilt_with_the_gate(store: Store, talker: Talker) -> None:
    with begin(store, talker) as session:
        live(session)
        state = session.state
    for path in (store.directory / "states").iterdir():
        path.unlink()
    assert store.rebuild("ann", talker) == ["ann"]
    with store.open("ann", talker) as session:
        assert_same(session.state, state)


def test_resleep_is_judged_by_the_same_gate_or_another(store: Store, talker: Talker) -> None:
    with begin(store, talker, REFUSES) as session:
        live(session)
    store.resleep("ann", "bob", talker._replace(sleep=SleepConfig(window=7, passes=2)))
    assert store.gate("bob") == REFUSES
    assert all(report.is_rejected for report in reports(store, "bob"))
    store.resleep("ann", "eve", talker, gate=ACCEPTS)
    assert store.gate("eve") == ACCEPTS
    assert not any(report.is_rejected for report in reports(store, "eve"))
    with store.open("eve", talker) as session:
        assert_led_to(store, session, talker)


# Exported.


@pytest.fixture
def exported(store: Store, talker: Talker, tmp_path: Path) -> Path:
    with begin(store, talker) as session:
        live(session)
        session.snapshot("monday")
        live(session)
    store.export("ann", tmp_path / "ann.session")
    return tmp_path / "ann.session"


def change(path: Path, changes: dict) -> None:
    """Writes the manifest anew; "twice" gives an entry whose sleep was rejected another one."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members["session.json"])
    if "twice" in changes:
        (report,) = (node := next(filter(was_undone, manifest["nodes"])))["sleeps"]
        node["sleeps"].append(report | {"number": report["number"] + changes["twice"]})
        changes = {}
    for key, value in changes.items():
        if value is None:
            del manifest[key]
        else:
            manifest[key] = value
    members["session.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def was_undone(node: dict) -> bool:
    sleeps = node["sleeps"]
    return node["entry"]["kind"] == "sleep" and sleeps[0]["verdict"]["outcome"] == "rejected"


def test_an_import_has_the_gate(
    store: Store, talker: Talker, exported: Path, tmp_path: Path
) -> None:
    with Store(tmp_path / "elsewhere") as other:
        other.import_session(exported)
        assert other.gate("ann") == EITHER
        assert other.sleeps("ann") == store.sleeps("ann")
        assert other.provenance("ann@monday") == store.provenance("ann@monday")
        other.export("ann", tmp_path / "again.session")
        assert (tmp_path / "again.session").read_bytes() == exported.read_bytes()
        with other.open("ann", talker) as session:
            assert_led_to(other, session, talker)
            live(session)
            assert_led_to(other, session, talker)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"twice": 0}, "its sleeps are out of order; export it again"),
        ({"twice": 1}, "its sleeps are out of order; export it again"),
        ({"gate": {"max_lost_canaries": 2}}, r"max_lost_canaries is 2\.0; use a share"),
        ({"gate": {"held_out": ["\ud800"]}}, "its JSON holds what is no text"),
        ({"gate": {"extra": 1}}, r"gate\.extra: unknown key"),
    ],
)
def test_wrong_gates(store: Store, exported: Path, changes: dict, message: str) -> None:
    change(exported, changes)
    with pytest.raises(ValueError, match=message):
        store.import_session(exported, "bob")
    assert [info.name for info in store.sessions()] == ["ann"]
    assert store.measure().leftovers == 0


def test_an_export_of_before_gates_is_read(
    store: Store, talker: Talker, exported: Path, tmp_path: Path
) -> None:
    with store.open("bob", talker, create=True) as session:
        live(session)
        state = session.state
    store.export("bob", tmp_path / "bob.session")
    with zipfile.ZipFile(tmp_path / "bob.session") as archive:
        nodes = json.loads(archive.read("session.json"))["nodes"]
    for node in nodes:
        node["sleeps"] = [drop_new(report) for report in node["sleeps"]]
    change(tmp_path / "bob.session", {"format": 1, "gate": None, "nodes": nodes})
    store.import_session(tmp_path / "bob.session", "old")
    assert store.gate("old") is None
    assert reports(store, "old") == [
        dataclasses.replace(report, pass_changes=()) for report in reports(store, "bob")
    ]
    with store.open("old", talker) as session:
        assert_same(session.state, state)


def drop_new(report: dict) -> dict:
    """A report as it was written before there were gates."""
    return {k: v for k, v in report.items() if k not in ("pass_changes", "verdict", "consolidator")}


# Older stores.


@pytest.fixture
def old(store: Store, talker: Talker, tmp_path: Path) -> Path:
    """A store of format 1, made by its own script."""
    with begin(store, talker, None) as session:
        session.read("Before.")
        session.snapshot("monday")
        live(session)
    folder = tmp_path / "old"
    shutil.copytree(store.directory / "states", folder / "states")
    database = sqlite3.connect(folder / "catalogue.sqlite")
    database.executescript(MIGRATIONS[0])
    database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    database.execute("PRAGMA user_version = 1")
    database.execute("PRAGMA foreign_keys = OFF")
    database.execute("ATTACH ? AS newer", (str(store.directory / "catalogue.sqlite"),))
    for (table,) in database.execute(
        "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    ).fetchall():
        columns = [row[1] for row in database.execute(f"PRAGMA main.table_info({table})")]
        names = ", ".join(columns)
        database.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM newer.{table}")
    new = "'$.pass_changes', '$.verdict', '$.consolidator'"
    sql = f"UPDATE main.sleeps SET report = json_remove(report, {new})"
    database.execute(sql)
    database.commit()
    assert "gate" not in str(database.execute("SELECT sql FROM main.sqlite_master").fetchall())
    database.close()
    return folder


def told(entries: list[Entry]) -> list[Entry]:
    """Without how replies were shown and ended, which older stores did not keep."""
    return [dataclasses.replace(entry, said="", finish=None) for entry in entries]


def test_a_store_of_before_gates_is_migrated(store: Store, talker: Talker, old: Path) -> None:
    for _ in range(2):
        with Store(old) as opened:
            assert told(opened.entries("ann")) == told(store.entries("ann"))
            assert opened.gate("ann") is None
            assert reports(opened, "ann") == [
                dataclasses.replace(report, pass_changes=()) for report in reports(store, "ann")
            ]
            with opened.open("ann", talker) as session, store.open("ann", talker) as twin:
                assert_same(session.state, twin.state)
    with Store(old) as opened, opened.open("ann", talker) as session:
        session.rollback("monday")
        live(session)
        session.read("And with a gate.")
        with opened.open("bob", talker, create=True, gate=EITHER) as bob:
            live(bob)
            assert_led_to(opened, bob, talker)
