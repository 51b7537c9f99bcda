"""Memory directories made to do harm: nothing outside them is read, written, removed or awaited."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch import Tensor

from slowwave.memory.catalogue_reads import read_carriers
from slowwave.memory.names import Damaged
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker
from tensor_files import replace_tensor


@pytest.fixture
def directory(tmp_path: Path, talker: Talker) -> Path:
    """A store with a session, a fork of it and a snapshot."""
    with Store(tmp_path / "store") as store, store.open("ann", talker, create=True) as session:
        session.read("Ann lives in Lima, and Bob in Rome.", source="notes")
        session.snapshot("monday")
        session.generate("Where?", max_new_tokens=5)
        session.sleep(passes=3)
        session.read("More.")
        store.fork("ann", "bob")
    return tmp_path / "store"


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file outside, which is as it was afterwards."""
    path = tmp_path / "canary.safetensors"
    path.write_bytes(b"precious")
    yield path
    assert path.read_bytes() == b"precious"
    assert path.stat().st_nlink == 1


def alter(directory: Path, *statements: str, **values: object) -> None:
    """Writes into the catalogue what this package would not."""
    with contextlib.closing(sqlite3.connect(directory / "catalogue.sqlite")) as db, db:
        db.create_function("recall_role", 3, lambda *_: None)
        db.execute("PRAGMA writable_schema = ON")
        for statement in statements:
            db.execute(statement, values)


def refuse(action: Callable[[], object], match: str) -> None:
    with pytest.raises(Damaged, match=match) as refusal:
        action()
    assert "\n" not in str(refusal.value)


# Files that lead elsewhere.


@pytest.mark.parametrize(
    "file",
    [
        "../../canary.safetensors",
        "{canary}",
        "canary.safetensors",
        "1-../../../canary.safetensors",
        "1-0123456789abcdef0123456789abcdef.safetensors\n",
        "1-0123456789abcdef0123456789abcdef.safetensors/../../../canary.safetensors",
        "\u0661-0123456789abcdef0123456789abcdef.safetensors",
        ".",
        "",
    ],
)
def test_only_names_of_the_store_are_state_files(
    directory: Path, canary: Path, talker: Talker, tmp_path: Path, file: str
) -> None:
    alter(directory, "UPDATE points SET file = :file", file=file.format(canary=canary))
    with Store(directory) as store:
        actions: list[Callable[[], object]] = [
            store.sessions,
            store.measure,
            lambda: store.info("ann"),
            lambda: store.export("ann", tmp_path / "out"),
            lambda: store.rollback("ann", "monday"),
            lambda: store.drop_snapshot("ann", "monday"),
            lambda: store.delete("ann"),
            lambda: store.open("ann", talker),
            lambda: store.rebuild("ann", talker),
            lambda: store.diff("ann", "ann@monday"),
            lambda: store.state("ann", talker),
        ]
        for action in actions:
            refuse(action, r"catalogue\.sqlite: .*is no name of a state file")
    assert not (tmp_path / "out").exists()


def test_a_state_that_is_a_link_is_none(
    directory: Path, canary: Path, talker: Talker, tmp_path: Path
) -> None:
    paths = [*(directory / "states").iterdir()]
    for path in paths:
        path.rename(tmp_path / path.name)  # as it was, but elsewhere
        path.symlink_to(tmp_path / path.name)
    with Store(directory) as store:
        actions: list[Callable[[], object]] = [
            lambda: store.export("ann", tmp_path / "out"),
            lambda: store.open("ann", talker),
            lambda: store.rollback("ann", "monday"),
            lambda: store.diff("ann", "ann@monday"),
            lambda: store.state("ann", talker),
        ]
        for action in actions:
            refuse(action, r"safetensors: a symbolic link; put the file itself there")
        assert store.rebuild("ann", talker) == ["ann", "ann@monday"]
        store.open("ann", talker).close()
    assert all((tmp_path / path.name).exists() for path in paths)


def link(path: Path, target: Path) -> None:
    """Puts a link in place of what there may be."""
    if path.exists():
        path.rename(target)
    path.symlink_to(target)


@pytest.mark.parametrize("name", ["states", "locks", "locks/1.lock"])
def test_folders_and_locks_that_are_links(
    directory: Path, talker: Talker, tmp_path: Path, name: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    link(directory / name, elsewhere)
    if elsewhere.is_dir():
        for file in ("99.lock", "99-0.safetensors"):  # such as are swept
            (elsewhere / file).touch()
    before = sorted(path.name for path in tmp_path.rglob("*"))

    def use() -> None:
        with Store(directory) as store:
            store.open("ann", talker).close()

    refuse(use, f"{name}: a link or no (folder|plain file); put the")
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_lock_that_is_a_link_truncates_nothing(
    directory: Path, canary: Path, talker: Talker
) -> None:
    (directory / "locks" / "1.lock").unlink()
    (directory / "locks" / "1.lock").symlink_to(canary)
    with Store(directory) as store:
        refuse(lambda: store.open("ann", talker), r"1\.lock: a link or no plain file")


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder"])
def test_a_catalogue_is_of_plain_files(
    directory: Path, tmp_path: Path, suffix: str, kind: str
) -> None:
    path = directory / f"catalogue.sqlite{suffix}"
    if path.exists():
        path.rename(tmp_path / "aside")
    match kind:
        case "link":
            (tmp_path / "aside").touch()
            path.symlink_to(tmp_path / "aside")
        case "dangling":
            path.symlink_to(tmp_path / "absent")
        case "pipe":
            os.mkfifo(path)
        case _:
            path.mkdir()
    refuse(lambda: Store(directory), f"catalogue.sqlite{suffix}: a link or no plain file; put the")
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize(
    "name", ["locks/1.lock", *(f"catalogue.sqlite{end}" for end in ("-wal", "-shm", "-journal"))]
)
def test_a_file_with_another_name_elsewhere_is_left_alone(
    directory: Path, canary: Path, talker: Talker, name: str
) -> None:
    canary.chmod(0o644)
    path = directory / name
    path.unlink(missing_ok=True)
    path.hardlink_to(canary)

    def use() -> None:
        with Store(directory) as store:
            store.open("ann", talker).close()

    refuse(use, rf"{name}: has another name too \(a hard link\); put a copy there")
    assert canary.stat().st_mode & 0o777 == 0o644
    path.unlink()
    use()


def test_a_journal_that_leads_elsewhere(directory: Path, canary: Path) -> None:
    """SQLite removes the super-journal that a hot journal names, which may be any file."""
    magic, name = bytes.fromhex("d9d505f920a163d7"), str(canary).encode()
    pages = (directory / "catalogue.sqlite").stat().st_size // 4096
    head = magic + struct.pack(">IIIII", 0, 0, pages, 512, 4096)
    end = struct.pack(">II", len(name), sum(name)) + magic
    journal = head.ljust(512, b"\0") + struct.pack(">I", 0x40000000 // 4096 + 1) + name + end
    (directory / "catalogue.sqlite-journal").write_bytes(journal)
    refuse(lambda: Store(directory), "catalogue.sqlite-journal: leads to another file; restore")


# What SQLite would do by itself.


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE more (a)",
        "CREATE VIEW more AS SELECT * FROM entries",
        "CREATE INDEX more ON entries (text)",
        "CREATE TRIGGER more AFTER INSERT ON entries BEGIN DELETE FROM sessions; END",
        "CREATE TRIGGER sqlite_more AFTER INSERT ON entries BEGIN DELETE FROM sessions; END",
        "ALTER TABLE sessions ADD COLUMN more AS (head + 1)",
        "DROP INDEX entries_parent",
        "DROP TABLE snapshots",
        "PRAGMA user_version = 1",
        "PRAGMA user_version = -1",
    ],
)
def test_only_our_own_tables(directory: Path, statement: str) -> None:
    if "sqlite_more" in statement:  # which SQL cannot say
        alter(directory, statement.replace("sqlite_more", "more_______"))
        alter(directory, "UPDATE sqlite_master SET name = 'sqlite_more' WHERE name = 'more_______'")
        content = (directory / "catalogue.sqlite").read_bytes()
        (directory / "catalogue.sqlite").write_bytes(
            content.replace(b"more_______", b"sqlite_more")
        )
    else:
        alter(directory, statement)
    with pytest.raises(ValueError, match=r"catalogue\.sqlite: (its tables are not|format -1)"):
        Store(directory)


def test_what_sqlite_says_may_be_no_text(directory: Path) -> None:
    """It quotes what it cannot read."""
    alter(directory, "UPDATE sqlite_master SET sql = sql || CAST(x'20ff88' AS TEXT)")
    refuse(lambda: Store(directory), r"catalogue\.sqlite: damaged, or no catalogue")


def test_what_sqlite_keeps_beside_them_is_fine(directory: Path) -> None:
    alter(directory, "ANALYZE", "REINDEX")
    with Store(directory) as store:
        assert len(store.entries("ann")) == 5


# Rows that this package does not write.


ANN = "(SELECT head FROM sessions WHERE name = 'ann')"


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE entries SET parent = (SELECT max(id) FROM entries)", "some are missing"),
        ("UPDATE entries SET parent = id", "some are missing"),
        ("UPDATE entries SET place = place + 1", "some are missing"),
        ("UPDATE entries SET place = 1", "some are missing"),
        ("UPDATE entries SET place = place + 0.5", "is no count"),
        ("UPDATE entries SET place = 'x'", "is no count|some are missing"),
        ("UPDATE entries SET place = 1e18", "is no count|some are missing"),
        ("UPDATE entries SET kind = 'dreamt'", "kind 'dreamt' is not known"),
        ("UPDATE entries SET kind = x'00'", "kind .* is not known"),
        ("UPDATE entries SET kind = 'sleep'", "a sleep says something"),
        ("UPDATE entries SET time = 1e300", r"time 1e\+300 is no time"),
        ("UPDATE entries SET time = -1.5", "time -1.5 is no time"),
        ("UPDATE entries SET time = 9e999", "time inf is no time"),
        ("UPDATE entries SET time = 'now'", "time 'now' is no time"),
        ("UPDATE entries SET source = 7 || x'ff'", "source|decode"),
        ("UPDATE entries SET source = x'41'", "source b'A' is no text"),
        ("UPDATE entries SET text = x'ff'", r"text b'\\xff' is no text"),
        ("UPDATE entries SET text = CAST(x'ff' AS TEXT)", "decode to UTF-8"),
        ("UPDATE entries SET tokens = 'abcd'", "tokens 'abcd' is no bytes"),
        ("UPDATE entries SET tokens = x'010203'", "the tokens of entry 1 are cut"),
        ("UPDATE entries SET tokens = x'01020304'", "not those it saw"),
        ("UPDATE entries SET passes = 'many'", "passes 'many' is no count"),
        ("UPDATE entries SET passes = 3", "what is no sleep has passes"),
        ("UPDATE entries SET role = 'tool'", "role 'tool' is not known"),
        ("UPDATE entries SET said = x'00'", "said .* is no text"),
        ("UPDATE entries SET finish = 'stop'", "what is no reply has an end"),
        ("UPDATE entries SET request = 5.5 || x'ff'", "request|decode"),
        ("UPDATE sleeps SET report = 'x'", "the report of a sleep in entry 1 is none"),
        ("UPDATE sleeps SET report = '{}'", "the report of a sleep in entry 1 is none"),
        ("UPDATE sleeps SET report = x'7b7d'", "the report of a sleep in entry 1 is none"),
        (
            'UPDATE sleeps SET report = replace(report, \'"passes":\', \'"passes":1,"passes":\')',
            "the report of a sleep in entry 1 is none",
        ),
        (
            "UPDATE sleeps SET report = replace(report, '\"changes\":[', '\"changes\":[NaN,')",
            "the report of a sleep in entry 1 is none",
        ),
        ("UPDATE sleeps SET number = number + 7", "is not that of its report"),
        ("UPDATE sleeps SET start = start + 1", "is not that of its report"),
        ("UPDATE sleeps SET start = start + 1, stop = stop + 1", "do not follow each other"),
        ("UPDATE sleeps SET stop = 9e18", "is no count|is not that of its report"),
        ("DELETE FROM sleeps WHERE start = 0", "do not follow each other"),
        ("DELETE FROM sleeps", "do not follow each other"),
        ("DELETE FROM entries WHERE place = 2", "some are missing|do not follow"),
        (f"DELETE FROM points WHERE id = {ANN}", "point 5 is missing"),
        ("UPDATE points SET entry = 999", "some are missing"),
        ("UPDATE points SET entry = NULL", "has no entry or no file"),
        ("UPDATE points SET entry = 'x'", "entry 'x' is no count"),
        ("UPDATE points SET file = NULL", "has no entry or no file"),
        ("UPDATE points SET file = x'00'", "is no name of a state file"),
        ("UPDATE points SET num_entries = num_entries + 1", "some are missing"),
        ("UPDATE points SET num_entries = 1 << 40 WHERE entry NOT NULL", "some are missing"),
        ("UPDATE points SET num_entries = 9223372036854775807", "is no count"),
        ("UPDATE points SET num_entries = -1", "is no count"),
        ("UPDATE points SET tokens_seen = tokens_seen + 1", "not those it saw"),
        ("UPDATE points SET tokens_seen = 1.5", "tokens_seen 1.5 is no count"),
        ("UPDATE points SET num_sleeps = 99", "the counts of point 5 cannot be"),
        ("UPDATE points SET window_fill = window_fill + 1", "do not follow|cannot be"),
        ("UPDATE sessions SET name = x'00' WHERE id = 1", "name .* is no text"),
        ("UPDATE sessions SET name = 'a@' || id", "name 'a@1' is no name"),
        ("UPDATE sessions SET name = char(10) || id", "name .* is no name"),
        ("UPDATE sessions SET created = 1e15", r"created .* is no time"),
        ("UPDATE sessions SET changed = -1e15", r"changed .* is no time"),
        ("UPDATE sessions SET model = 1 || x'ff'", "model|decode"),
        ("UPDATE sessions SET tokenizer = x'00'", "tokenizer .* is no text"),
        ("UPDATE sessions SET sleep = '{}{'", "session 'ann': its JSON is malformed"),
        ("UPDATE sessions SET sleep = '[]'", "session 'ann': "),
        ("UPDATE sessions SET sleep = '{\"window\": 0}'", "session 'ann': sleep.window is 0"),
        ("UPDATE sessions SET gate = '{\"a\": 1}'", "session 'ann': a: unknown key in GateConfig"),
        ("UPDATE sessions SET head = 'x'", "head 'x' is no count"),
        ("UPDATE sessions SET before = 99", "point 99 is missing"),
        ("UPDATE snapshots SET name = 'a@b'", "name 'a@b' is no name"),
        ("UPDATE snapshots SET time = 'x'", "time 'x' is no time"),
        ("UPDATE snapshots SET point = 99", "point 99 is missing"),
    ],
)
def test_rows_of_other_kinds(directory: Path, talker: Talker, statement: str, reason: str) -> None:
    """Each is refused by what reads it, and by nothing in another way."""
    alter(directory, statement)
    refusals = list[str]()
    with Store(directory) as store:
        for action in (
            store.sessions,
            lambda: store.info("ann"),
            lambda: store.entries("ann"),
            lambda: store.sleeps("ann"),
            lambda: store.sleeps("ann", 1),
            lambda: store.sources("ann"),
            lambda: store.page("ann", 0, 3),
            lambda: store.page("ann", 0, 9, most_tokens=9),
            lambda: store.last_page("ann", 2),
            lambda: store.provenance("ann@monday"),
            lambda: store.open("ann", talker).close(),
        ):
            try:
                action()
            except Damaged as error:
                refusals.append(str(error))
            except ValueError as error:
                assert "no session 'ann'; there are" in str(error)
    assert refusals
    for refusal in refusals:
        assert str(directory) in refusal
        assert "\n" not in refusal
    assert any(re.search(reason, refusal) for refusal in refusals), refusals


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: weights.long(),
        lambda weights: weights > 0,
        lambda weights: weights.bfloat16(),
        lambda weights: weights[0],
        lambda weights: weights * float("nan"),
        lambda weights: weights + float("inf"),
        lambda _: None,
    ],
    ids=["int64", "bool", "bfloat16", "rank", "nan", "infinity", "missing"],
)
def test_fast_weights_that_are_none_are_not_compared(
    directory: Path, change: Callable[[Tensor], Tensor | None]
) -> None:
    with Store(directory) as store:
        file = store._find_session("ann").head.file
        replace_tensor(directory / "states" / f"{file}", "layers.1.fast_weights", change)
        for points in (("ann", "ann@monday"), ("ann@monday", "ann")):
            refuse(
                lambda points=points: store.diff(*points), "fast weights are missing, or are none"
            )


# Ledgers whose replay would do harm.


def test_a_ledger_that_leads_back_to_itself_ends(directory: Path, talker: Talker) -> None:
    with Store(directory) as store, store.open("ann", talker) as session:
        ids = [*store._read_ledger("ann")]
        alter(
            directory,
            "UPDATE entries SET parent = :last WHERE id = :first",
            first=ids[0],
            last=ids[-1],
        )
        alter(directory, "UPDATE entries SET place = 7 WHERE id = :first", first=ids[0])
        with store._catalogue.reading() as db:
            assert read_carriers(db, [ids[2]]) != []
        for action in (
            session.ledger,
            lambda: store.entries("ann"),
            lambda: store.page("ann", 0, 9),
            lambda: store.provenance("ann"),
            lambda: session.preview_forgetting(places=[0]),
        ):
            refuse(action, "some are missing|not those")
        store.delete("bob")


@pytest.mark.parametrize("passes", [65, 2**32 - 1, 2**53])
def test_a_sleep_of_endless_passes_is_not_replayed(
    directory: Path, talker: Talker, passes: int
) -> None:
    alter(directory, "UPDATE entries SET passes = :n WHERE kind = 'sleep'", n=passes)
    for path in (directory / "states").iterdir():
        path.unlink()
    with Store(directory) as store:
        for action in (
            lambda: store.rebuild("ann", talker),
            lambda: store.resleep("ann", "eve", talker),
            lambda: store.export("ann", directory / "out"),
        ):
            refuse(action, f"catalogue.sqlite: .*passes is {passes}; use 1")
        assert not (directory / "out").exists()


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("tokens", b"\0\1\0\0", "at place {} is unfit: it has a token out of 0 to 255"),
        ("tokens", b"\xff\xff\xff\xff", "at place {} is unfit: it has a token out of 0 to 255"),
        ("tokens", b"B\0\0\0", "the tokens at place {} do not say what its text says"),
        ("text", "Something else.", "the tokens at place {} do not say what its text says"),
    ],
)
def test_tokens_that_are_not_the_text(
    directory: Path, talker: Talker, column: str, value: bytes | str, reason: str
) -> None:
    """In the last entries the opening sees it, elsewhere the replay."""
    with Store(directory) as store, store.open("ann", talker) as session:
        session.read("A")
        last = store.info("ann").num_entries - 1
    alter(directory, f"UPDATE entries SET {column} = :value WHERE place = {last}", value=value)
    with Store(directory) as store:
        refuse(lambda: store.open("ann", talker), reason.format(last))
        for path in (directory / "states").iterdir():
            path.unlink()
        refuse(lambda: store.rebuild("ann", talker), reason.format(last))
        refuse(lambda: store.resleep("ann", "eve", talker), reason.format(last))
        assert [info.name for info in store.sessions()] == ["ann", "bob"]


def test_what_is_to_be_replayed_is_looked_at(directory: Path, talker: Talker) -> None:
    with Store(directory) as store, store.open("ann", talker) as session:
        for _ in range(70):
            session.read("A")
        alter(directory, "UPDATE entries SET text = 'B' WHERE place = 6")
        session.close()
        with store.open("ann", talker) as session:
            before = session.state
            forgetting = session.preview_forgetting(places=[0])
            refuse(lambda: session.forget(forgetting), "the tokens at place 6 do not say what its")
            assert session.state is before


def test_a_state_of_another_moment_is_none(directory: Path, talker: Talker) -> None:
    """Sound in itself, of the same model and settings."""
    with Store(directory) as store, store.open("bob", talker) as session:
        session.read("Other.")
        ann, bob = (store._find_session(name).head.file for name in ("ann", "bob"))
        monday = store.info("ann").snapshots[0].point.file
    states = directory / "states"
    for other in (bob, monday):
        (states / f"{ann}").write_bytes((states / f"{other}").read_bytes())
        with Store(directory) as store:
            refuse(lambda: store.open("ann", talker), "not the state that its ledger leads to")
            refuse(lambda: store.state("ann", talker), "not the state that its ledger leads to")
    with Store(directory) as store:
        assert store.rebuild("ann", talker) == ["ann"]
        store.open("ann", talker).close()
