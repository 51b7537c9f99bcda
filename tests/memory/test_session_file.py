"""Exported sessions: whole, equal for equal sessions, and refused in one sentence if damaged."""

from __future__ import annotations

import json
import os
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slowwave.memory.session_file import read_session_file
from slowwave.memory.sleep_report import SleepReport
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker
from tensor_files import replace_tensor


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as store:
        yield store


@pytest.fixture
def exported(store: Store, talker: Talker, tmp_path: Path) -> Path:
    """A session whose snapshots are on other ways than its head."""
    with store.open("ann", talker, create=True) as session:
        session.snapshot("start")
        session.read("Ann lives in Lima, and Bob in Rome.", source="notes")
        session.snapshot("monday")
        session.generate("Where?", max_new_tokens=5)
        session.sleep(passes=3)
        session.snapshot("tuesday")
        session.rollback("monday")
        session.read("Another way.")
    store.export("ann", tmp_path / "ann.session")
    return tmp_path / "ann.session"


def rewrite(path: Path, members: dict[str, bytes | str], **options: Any) -> None:
    """Writes an archive anew, with some members in place of others; an empty one goes."""
    with zipfile.ZipFile(path) as archive:
        found: dict[str, bytes | str] = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in (found | members).items():
            if content:
                archive.writestr(name, content)


def manifest_of(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("session.json"))


def is_empty(store: Store, of: str) -> bool:
    """Whether nothing is left of an import that failed."""
    return all(info.name != of for info in store.sessions()) and store.measure().leftovers == 0


def test_an_import_is_the_session(
    store: Store, talker: Talker, exported: Path, tmp_path: Path
) -> None:
    with Store(tmp_path / "elsewhere") as other:
        info = other.import_session(exported)
        assert (info.name, info.num_entries) == ("ann", 2)
        for point in ("ann", "ann@start", "ann@monday", "ann@tuesday"):
            assert other.entries(point) == store.entries(point)
            assert other.sleeps(point) == store.sleeps(point)
        assert other.diff("ann@monday", "ann@tuesday") == store.diff("ann@monday", "ann@tuesday")
        other.export("ann", tmp_path / "again.session")
        assert (tmp_path / "again.session").read_bytes() == exported.read_bytes()
        with (
            store.open("ann", talker) as session,
            other.open("ann", talker) as twin,
        ):
            for point in (None, "tuesday", "start"):
                if point is not None:
                    session.rollback(point)
                    twin.rollback(point)
                assert session.generate("Who?") == twin.generate("Who?")
                pairs = zip(session.state.fast_weights, twin.state.fast_weights, strict=True)
                assert all(torch.equal(mine, theirs) for mine, theirs in pairs)


def test_an_import_takes_a_name_that_is_free(store: Store, exported: Path) -> None:
    with pytest.raises(ValueError, match="session 'ann' is there already; choose another name"):
        store.import_session(exported)
    with pytest.raises(ValueError, match="session name 'a@b' is unfit"):
        store.import_session(exported, "a@b")
    assert store.import_session(exported, "bob").name == "bob"
    assert store.measure().leftovers == 0


def test_an_empty_session_is_a_file_too(store: Store, talker: Talker, tmp_path: Path) -> None:
    store.open("ann", talker, create=True).close()
    store.export("ann", tmp_path / "file")
    assert store.import_session(tmp_path / "file", "bob").num_entries == 0
    with store.open("bob", talker) as session:
        session.read("Hello")


def test_a_session_without_its_state_is_not_exported(
    store: Store, exported: Path, tmp_path: Path
) -> None:
    for path in (store.directory / "states").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="safetensors: missing; rebuild its session first"):
        store.export("ann", tmp_path / "file")
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 4}, "format 4, but this slowwave reads formats 1 to 3; use the slowwave that"),
        ({"format": True}, "format True, but this slowwave reads formats 1 to 3"),
        ({"format": 3.0}, r"format 3\.0, but this slowwave reads formats 1 to 3"),
        ({"format": "3"}, "format '3', but this slowwave reads formats 1 to 3"),
        ({"sleep": {"window": -(10**4000)}}, r"sleep\.window is -10{78}; use 1 or more tokens"),
        ({"gate": {"max_new_tokens": 10**4000}}, r"gate\.max_new_tokens is 10{79}; use 1 to 4096"),
        ({"extra": 1}, "extra: unknown key in Manifest"),
        ({"head": 99}, "an entry follows one that is not there"),
        ({"head": None}, "lacks a state, or has one too many"),
        ({"head": -1}, "an entry follows one that is not there"),
        ({"model": "another"}, "a state in it is of another session"),
        ({"tokenizer": "another"}, "a state in it is of another session"),
        ({"snapshots": [{"name": "x", "time": 0, "last": 0}] * 2}, "two snapshots have one name"),
        ({"snapshots": [{"name": "x", "time": 1e300, "last": 0}]}, "time of snapshot 'x' is 1e"),
        ({"snapshots": [{"name": "x", "time": -1, "last": 0}]}, "time of snapshot 'x' is -1"),
    ],
)
def test_wrong_manifests(
    store: Store, exported: Path, changes: dict[str, Any], message: str
) -> None:
    manifest = manifest_of(exported) | changes
    rewrite(exported, {"session.json": json.dumps(manifest)})
    with pytest.raises(ValueError, match=message):
        store.import_session(exported, "bob")
    assert is_empty(store, "bob")


def test_names_that_break_the_rule(store: Store, exported: Path) -> None:
    manifest, snapshots = manifest_of(exported), manifest_of(exported)["snapshots"]
    longer = [snapshots[0] | {"name": "a" * 10**6}, *snapshots[1:]]
    snapshots[1]["name"] = "a\nb"
    for changes, name, message in (
        ({"name": "a@b"}, None, r"its session is called 'a@b', which is unfit; name it anew"),
        ({"snapshots": snapshots}, "bob", r"snapshot name 'a\\nb' is unfit"),
        ({"name": "a" * 10**6}, None, r"its session is called 'a{79}, which is unfit"),
        ({"snapshots": longer}, "bob", r"snapshot name 'a{79} is unfit"),
    ):
        rewrite(exported, {"session.json": json.dumps(manifest | changes)})
        with pytest.raises(ValueError, match=rf"ann\.session: {message}"):
            store.import_session(exported, name)
        assert is_empty(store, "bob")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"before": 5}, "an entry follows one that is not there"),
        ({"before": 0}, "an entry follows one that is not there"),
        ({"sleeps": []}, "its sleeps are out of order|a state in it is of another session"),
        ({"entry": {"tokens": [-1]}}, "a token is negative or too large"),
        ({"entry": {"tokens": [2**32]}}, "a token is negative or too large"),
        ({"entry": {"tokens": [65, 66]}}, "the tokens at place 0 do not say what its text says"),
        ({"entry": {"tokens": [256]}}, "the entry at place 0 is unfit: it has a token out of 0 to"),
        ({"entry": {"text": "Bob"}}, "the tokens at place 0 do not say what its text says"),
        ({"entry": {"tokens": [66], "text": "B"}}, "its sleeps are out of order"),
        ({"last sleep": {"number": 7}}, "its sleeps are out of order"),
        ({"last sleep": {"trigger": "asked"}}, "its sleeps are out of order"),
        ({"last sleep": {"tokens": 2**50}}, "its sleeps are out of order"),
        ({"last sleep": {"tokens": 2**70}}, "a count of sleep 2 cannot be"),
        ({"last sleep": {"milliseconds": "nan"}}, "milliseconds: Input should be a finite number"),
        ({"entry": {"passes": 3}}, "what is no sleep has passes"),
        ({"entry": {"kind": "sleep"}}, "a sleep says something"),
        ({"entry": {"finish": "stop"}}, "what is no reply has an end"),
        ({"entry": {"kind": "dreamt"}}, "kind"),
        ({"entry": {"role": "tool"}}, "role"),
        ({"entry": {"time": float("nan")}}, "not the manifest of a session"),
        ({"entry": {"time": "nan"}}, "time"),
        ({"entry": {"time": 10**400}}, "time"),
        ({"entry": {"time": 1e300}}, r"time is 1e\+300, which no clock shows"),
        ({"entry": {"time": 253402300800}}, "which no clock shows"),
        ({"entry": {"time": -1e-9}}, "which no clock shows"),
        ({"entry": {"text": "\ud800"}}, "holds what is no text"),
    ],
)
def test_wrong_entries(store: Store, exported: Path, changes: dict[str, Any], message: str) -> None:
    manifest = manifest_of(exported)
    node = manifest["nodes"][0]
    node["sleeps"][-1] |= changes.get("last sleep", {})
    changes = {key: value for key, value in changes.items() if key != "last sleep"}
    entry = node["entry"] | changes.get("entry", {})
    manifest["nodes"][0] = node | changes | {"entry": entry}
    rewrite(exported, {"session.json": json.dumps(manifest)})
    with pytest.raises(ValueError, match=message):
        store.import_session(exported, "bob")
    assert is_empty(store, "bob")


@pytest.mark.parametrize("passes", [0, -1, 65, 2**32 - 1, 2**70])
def test_a_sleep_with_too_many_passes_is_refused(
    store: Store, talker: Talker, exported: Path, passes: int
) -> None:
    """Or to replay it would never end."""
    manifest = manifest_of(exported)
    [sleep] = [node["entry"] for node in manifest["nodes"] if node["entry"]["kind"] == "sleep"]
    sleep["passes"] = passes
    rewrite(exported, {"session.json": json.dumps(manifest)})
    with pytest.raises(ValueError, match=rf"ann\.session: .*passes is {passes}; use 1"):
        store.import_session(exported, "bob")
    assert is_empty(store, "bob")


@pytest.mark.parametrize(
    "changes",
    [
        {"nodes": [{}] * 50_000},
        {"snapshots": [{}] * 50_000},
        {"nodes": [{"before": None, "entry": {"tokens": ["x"] * 50_000}, "sleeps": []}]},
        {"nodes": [{"before": None, "entry": {}, "sleeps": [{"changes": ["x"] * 50_000}]}]},
        {"gate": {"held_out": [1] * 50_000}},
        {"gate": {"canaries": [1] * 50_000}},
        {f"key {i}": 1 for i in range(50_000)},
    ],
    ids=["nodes", "snapshots", "tokens", "changes", "held-out", "canaries", "keys"],
)
def test_a_manifest_that_is_wrong_throughout_takes_no_memory(
    store: Store, exported: Path, changes: dict[str, Any]
) -> None:
    """Each fault that is looked at takes about a kilobyte."""
    rewrite(exported, {"session.json": json.dumps(manifest_of(exported) | changes)})
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"ann\.session: "):
            store.import_session(exported, "bob")
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_manifest_that_says_two_things_is_refused(store: Store, exported: Path) -> None:
    text = json.dumps(manifest_of(exported))
    rewrite(exported, {"session.json": text.replace('"name": "ann"', '"name": "a", "name": "b"')})
    with pytest.raises(ValueError, match=r"ann\.session: not the .*its JSON names a key twice"):
        store.import_session(exported, "bob")


@pytest.mark.parametrize("text", ["", "[" * 100_000, "[]", "{}", "\xff", '{"format": 1}'])
def test_no_manifests(store: Store, exported: Path, text: str) -> None:
    rewrite(exported, {"session.json": text})
    with pytest.raises(ValueError, match=r"ann\.session: "):
        store.import_session(exported, "bob")


def test_wrong_states(store: Store, exported: Path) -> None:
    with zipfile.ZipFile(exported) as archive:
        other = archive.read("states/2.safetensors")
    for content, message in (
        (b"", "lacks a state, or has one too many"),
        (b"nonsense", "changed: a state in it is damaged; export it again"),
        (other, "a state in it is of another session"),
    ):
        path = exported.with_name("changed")
        path.write_bytes(exported.read_bytes())
        rewrite(path, {"states/0.safetensors": content})
        with pytest.raises(ValueError, match=message):
            store.import_session(path, "bob")
        assert is_empty(store, "bob")


def test_a_state_whose_window_is_of_another_ledger(store: Store, exported: Path) -> None:
    """All counters agree, and the checksum too."""
    with zipfile.ZipFile(exported) as archive:
        state = archive.read("states/0.safetensors")
    path = exported.with_name("state")
    path.write_bytes(state)
    replace_tensor(path, "window.tokens", lambda tokens: tokens + 1)
    rewrite(exported, {"states/0.safetensors": path.read_bytes()})
    with pytest.raises(ValueError, match=r"ann\.session: a state in it is of another session"):
        store.import_session(exported, "bob")
    assert is_empty(store, "bob")


def test_archives_that_claim_what_they_are_not(store: Store, exported: Path) -> None:
    whole = exported.read_bytes()
    path = exported.with_name("changed")
    with zipfile.ZipFile(exported) as archive:
        names = archive.namelist()
    for name in names:  # a name that is written in one place alone, or in no text at all
        for other in (b"../" + name[3:].encode(), b"\xff" * len(name)):
            for place in (whole.index(name.encode()), whole.rindex(name.encode())):
                path.write_bytes(whole[:place] + other + whole[place + len(name) :])
                with pytest.raises(ValueError, match=r"/changed: .*; (export it again|name anot)"):
                    store.import_session(path, "bob")
    at = whole.index(b"PK\x01\x02")  # of the first member in the archive's own list
    for place, value in (
        (8, b"\0\x08"),  # its name is UTF-8, which it is not
        (6, b"\xff\xff"),  # of a version to come
        (42, b"\xff\xff\xff\xff"),  # it lies where nothing is
    ):
        changed = bytearray(whole)
        changed[at + 46 : at + 50] = b"\xff" * 4
        changed[at + place : at + place + len(value)] = value
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"/changed: .*; (export it again|name another)"):
            store.import_session(path, "bob")
    with zipfile.ZipFile(exported, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("session.json", "{}")
    with pytest.raises(ValueError, match="an archive, but not an exported session; name another"):
        store.import_session(exported, "bob")
    assert is_empty(store, "bob")


def test_what_is_no_file_is_not_waited_for(store: Store, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(ValueError, match=f"{path}: no plain file; name another"):
            store.import_session(path)


def test_a_packed_archive_is_refused(store: Store, exported: Path) -> None:
    """What is compressed could be of any size."""
    rewrite(exported, {}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="an archive, but not an exported session; name another"):
        store.import_session(exported, "bob")


def test_no_archives(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file; name an exported session"):
        store.import_session(tmp_path / "absent")
    (tmp_path / "file").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="truncated, or not an exported session"):
        store.import_session(tmp_path / "file")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_happened_to_a_file_is_one_sentence(exported: Path, data: st.DataObject) -> None:
    content = bytearray(exported.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = exported.with_name("changed")
    path.write_bytes(content)
    try:
        found = read_session_file(path)
    except ValueError as error:
        assert str(error).startswith(str(path))
    else:  # what is not read, or bytes that were drawn as they were
        assert found == read_session_file(exported)


def test_the_kind_of_a_sleep_is_kept(
    tmp_path: Path, talker: Talker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def report(**values: Any) -> SleepReport:
        return SleepReport(**{**values, "consolidator": "ridge"})

    with Store(tmp_path / "one") as store, Store(tmp_path / "two") as other:
        with store.open("ann", talker, create=True) as session:
            session.read("Ann lives in Lima.")
            monkeypatch.setattr("slowwave.memory.transaction.SleepReport", report)
            session.read("Bob lives in Rome.")
        store.export("ann", tmp_path / "ann.memory")
        other.import_session(tmp_path / "ann.memory")
        kinds = [slept.report.consolidator for slept in other.sleeps("ann")]
        assert kinds == ["passes", "ridge", "ridge"]
