"""One rule for the names of memories and snapshots, wherever they are given."""

from __future__ import annotations

from pathlib import Path

import pytest

from slowwave.memory.names import OWNER, UnknownName, check_name, is_fit, is_readable
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker

FIT = ("a", "ann", "Großmutter 1", "vor dem Tee", "a.b", "a-b", "a_b", "x" * 128, "日本", "[red]")
BEFORE = ("a/b", "../x", "..", ".", "/", "a\\b", "-x", "--yes", ".x")
NEVER = ("", " ", " a", "a ", "a@b", "a\nb", "a\x1b[31m", "\udcff", "\u202ea", "x" * 129)


def test_the_rule() -> None:
    assert [name for name in FIT if not is_fit(name)] == []
    assert [name for name in (*BEFORE, *NEVER) if is_fit(name)] == []
    assert [name for name in (*FIT, *BEFORE) if not is_readable(name)] == []
    assert [name for name in NEVER if is_readable(name)] == []
    assert check_name("session", "ann") == "ann"


def test_owners_have_names_that_memories_may_have_too() -> None:
    assert [name for name in (*BEFORE, *NEVER) if OWNER.fullmatch(name)] == []
    assert OWNER.fullmatch("ann-1.b_c")


@pytest.mark.parametrize("name", [*BEFORE, *NEVER])
def test_no_way_into_a_store_takes_another(
    name: str, talker: Talker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(tmp_path / "memories") as store:
        with store.open("ann", talker, create=True) as session:
            session.read("Hi.")
            with pytest.raises(ValueError, match=r"snapshot name .* is unfit; use 1 to 128"):
                session.snapshot(name)
        store.export("ann", tmp_path / "file")
        monkeypatch.setattr("slowwave.memory.store.resleep", lambda *_: pytest.fail("too late"))
        for call in (
            lambda: store.open(name, talker, create=True),
            lambda: store.fork("ann", name),
            lambda: store.resleep("ann", name, talker),
            lambda: store.import_session(tmp_path / "file", name),
        ):
            with pytest.raises(ValueError, match=r"session name .* is unfit; use 1 to 128"):
                call()
        with pytest.raises(ValueError, match=r"snapshot name .* is unfit; use 1 to 128"):
            store.snapshot("ann", name)
        assert [(info.name, info.snapshots) for info in store.sessions()] == [("ann", ())]
        assert store.measure().leftovers == 0


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch, talker: Talker, tmp_path: Path) -> Store:
    """A store with a session and a snapshot that were named before there was the rule."""
    store = Store(tmp_path / "memories")
    with monkeypatch.context() as patched:
        for module in ("store", "stored_session"):
            patched.setattr(f"slowwave.memory.{module}.check_name", lambda what, name: name)
        with store.open("a/b", talker, create=True) as session:
            session.read("Hi.")
            session.snapshot("../x")
    return store


def test_what_was_named_before_keeps_its_name(older: Store, talker: Talker, tmp_path: Path) -> None:
    with older.open("a/b", talker, create=True) as session:
        session.rollback("../x")
    older.export("a/b", tmp_path / "file")
    with pytest.raises(ValueError, match=r"file: its session is called 'a/b', which is unfit"):
        older.import_session(tmp_path / "file")
    assert older.import_session(tmp_path / "file", "ann").snapshots[0].name == "../x"
    older.close()


@pytest.mark.parametrize("name", NEVER)
def test_a_name_that_never_was_is_of_nothing(name: str, older: Store) -> None:
    with older:
        for call in (
            lambda: older.info(name),
            lambda: older.delete(name),
            lambda: older.rollback("a/b", name),
            lambda: older.entries(f"a/b@{name}"),
        ):
            with pytest.raises(UnknownName, match="no s"):
                call()
