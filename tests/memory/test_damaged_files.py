"""Damage of any kind, drawn from a seed, to catalogues, exports and memory files.

Whatever is done with them then ends, and in one sentence that names the file where it is refused.
Nothing outside the memory directory changes, and nothing is left behind.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from byte_tokenizer import ByteTokenizer
from damage import spoil_archive, spoil_bytes, spoil_memory, spoil_rows
from slowwave.commands.process import explain
from slowwave.memory.config import Canary, GateConfig
from slowwave.memory.names import OtherModel, UnknownName
from slowwave.memory.session_file import read_session_file
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker
from slowwave.models.backbone import HybridLM
from slowwave.runtime.config import ChatFormat
from slowwave.sleep.config import SleepConfig
from slowwave.storage.memory_file import read_fast_weights, read_header
from tiny_models import TWO_LAYERS

TALKER = Talker(
    HybridLM(TWO_LAYERS, seed=1), ByteTokenizer(), SleepConfig(window=12, passes=2), ChatFormat()
)
# What a store may have in it.
OWN = re.compile(
    r"catalogue\.sqlite(-wal|-shm|-journal|-reserve)?|states|locks"
    r"|states/\d+-[0-9a-f]{32}\.safetensors|locks/\d+\.lock"
)
# What is no damage, but what it leads to where the damaged file is a sound one that says less.
SOUND = (
    "nothing is from source",
    "there is nothing to forget",
    "is not in the ledger",
    "which is no reply, or is to be forgotten",
    "are of models that differ",
    "has no fast weights",
    "the window is empty",
)


@pytest.fixture(scope="module")
def patched() -> Iterator[pytest.MonkeyPatch]:
    """Clocks and names are the same in every run, and so are the files that are damaged."""
    ticks, draw = itertools.count(1_700_000_000), random.Random(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: float(next(ticks)))
        patch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=draw.getrandbits(128), version=4))
        yield patch


@pytest.fixture(scope="module")
def quick_folder() -> Iterator[Path]:
    """A folder in memory where there is one: the disk is synced thousands of times."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def whole(quick_folder: Path, patched: pytest.MonkeyPatch) -> Path:
    """A store in `memories`, exports of its sessions beside it, and a memory file."""
    folder = quick_folder / "whole"
    folder.mkdir()
    gate = GateConfig(canaries=(Canary(question="Who?", answer="Ann"),), max_new_tokens=2)
    with Store(folder / "memories") as store:
        with store.open("ann", TALKER, create=True) as session:
            session.snapshot("start")
            session.generate("Ann is here.", max_new_tokens=3)
            session.snapshot("monday")
            session.read("Bob lives in Lima.", source="notes")
            session.sleep(passes=3)
            session.read("More.")
            session.save(folder / "one.safetensors")
        store.fork("ann@monday", "bob")
        with store.open("eve", TALKER, create=True, gate=gate) as session:
            session.read("Where is Bob?")
            session.sleep()
        store.export("ann", folder / "ann.memory")
        store.export("eve", folder / "eve.memory")
    return folder


@pytest.fixture(scope="module")
def around(quick_folder: Path, patched: pytest.MonkeyPatch) -> Path:
    """What nothing may touch: a current directory, a temporary one, and files beside the store."""
    folder = quick_folder / "around"
    folder.mkdir()
    for name in ("current", "temporary", "outside", "outside/states", "outside/locks"):
        (folder / name).mkdir()
    for name in (
        "canary",
        "outside/canary",
        "outside/states/1.safetensors",
        "outside/locks/1.lock",
    ):
        (folder / name).write_text("precious")
    patched.chdir(folder / "current")
    patched.setattr(tempfile, "tempdir", str(folder / "temporary"))
    return folder


def look(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """All that is in a folder but the store: inodes, times and contents."""
    paths = [path for path in folder.rglob("*") if folder / "store" not in [path, *path.parents]]
    return {
        str(path): (
            path.lstat().st_ino,
            path.lstat().st_mtime_ns if path.is_file() else 0,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in paths
    }


class Trial:
    """One damaged store, export or file in `around`, and what was said of it."""

    def __init__(self, around: Path) -> None:
        self.around, self.directory = around, around / "store"
        self.refused = list[str]()

    def attempt(self, action: Callable[[], object]) -> None:
        """Does something that may be refused, in one sentence."""
        try:
            action()
        except (ValueError, OSError) as error:
            sentence = explain(error)
            assert "\n" not in str(error), error
            assert len(sentence) < 2000, sentence[:2000]
            named = str(self.around) in sentence or isinstance(error, UnknownName | OtherModel)
            assert named or any(words in sentence for words in SOUND), repr(error)
            self.refused.append(sentence)

    def use_store(self) -> None:
        """Everything that can be done with a store, as far as it can be opened at all."""
        with contextlib.ExitStack() as stack:
            stores = list[Store]()
            self.attempt(lambda: stores.append(stack.enter_context(Store(self.directory))))
            for store in stores:
                for action in self._list_actions(store):
                    self.attempt(action)

    def use_archive(self, path: Path) -> None:
        """Takes an export in, and uses what that made."""
        self.attempt(lambda: read_session_file(path))
        with Store(self.directory) as store:
            self.attempt(lambda: store.import_session(path, "ann"))
            if not store.sessions():
                assert store.measure().heads == store.measure().leftovers == 0
                return
        self.use_store()

    def use_memory(self, path: Path) -> None:
        """Reads a memory file, and goes on from it."""
        session = TALKER.session()
        self.attempt(lambda: read_header(path))
        self.attempt(lambda: read_fast_weights(path))
        self.attempt(lambda: session.load(path))
        session.read("On.")

    def _list_actions(self, store: Store) -> list[Callable[[], object]]:
        def read() -> None:
            with store.open("ann", TALKER) as session:
                session.read("On it goes.")
                session.last_turn()
                session.ledger()

        def go_back() -> None:
            with store.open("ann", TALKER) as session:
                session.rollback("monday")
                session.read("Another way.")

        def forget() -> None:
            with store.open("ann", TALKER) as session:
                session.forget(session.preview_forgetting(places=[0]))

        out = self.around / "store.memory"

        def move() -> None:
            try:
                store.export("ann", out)
                store.import_session(out, "moved")
                store.delete("moved")
            finally:
                out.unlink(missing_ok=True)

        return [
            store.sessions,
            store.measure,
            lambda: [store.info(name) for name in ("ann", "bob", "eve")],
            lambda: [store.entries(point) for point in ("ann", "ann@start", "ann@monday", "bob")],
            lambda: [store.sleeps(name) for name in ("ann", "ann@monday", "eve")],
            lambda: store.sleeps("ann", 1),
            lambda: store.sources("ann"),
            lambda: [store.page("ann", 1, 3), store.last_page("ann", 2)],
            lambda: store.provenance("ann"),
            lambda: store.gate("eve"),
            lambda: store.diff("ann", "ann@monday"),
            lambda: store.state("ann@monday", TALKER),
            move,
            read,
            lambda: store.snapshot("ann", "tuesday"),
            lambda: store.fork("ann", "forked"),
            go_back,
            forget,
            lambda: store.rollback("ann", "start"),
            lambda: store.resleep("bob", "slept", TALKER),
            lambda: [store.rebuild(name, TALKER) for name in ("ann", "bob")],
            lambda: store.drop_snapshot("ann", "start"),
            *(lambda name=name: store.delete(name) for name in ("ann", "bob", "eve", "slept")),
        ]

    def check_store(self) -> None:
        """That there is nothing in the store but what belongs there."""
        for path in self.directory.rglob("*"):
            assert OWN.fullmatch(path.relative_to(self.directory).as_posix()), path
            assert path.is_dir() or path.is_file(), path


@pytest.fixture
def trial(whole: Path, around: Path) -> Iterator[Callable[[], contextlib.AbstractContextManager]]:
    """Makes trials, each with a fresh copy of the store, and looks around after each."""
    before = look(around)

    @contextlib.contextmanager
    def make(copied: bool = True) -> Iterator[Trial]:
        shutil.rmtree(around / "store", ignore_errors=True)
        if copied:
            shutil.copytree(whole / "memories", around / "store")
        made = Trial(around)
        yield made
        made.check_store()
        assert look(around) == before

    yield make
    shutil.rmtree(around / "store", ignore_errors=True)


Make = Callable[..., contextlib.AbstractContextManager[Trial]]


def test_sound_files_are_refused_nothing(trial: Make, whole: Path) -> None:
    with trial() as made:
        made.use_store()
        assert made.refused == []
    for name in ("ann", "eve"):
        with trial(copied=False) as made:
            made.use_memory(whole / "one.safetensors")
            with Store(made.directory) as store:
                store.import_session(whole / f"{name}.memory")
        assert made.refused == []


def test_damaged_catalogues(trial: Make, whole: Path) -> None:
    refused = 0
    for seed in range(100):
        with trial() as made:
            path, draw = made.directory / "catalogue.sqlite", random.Random(seed)
            path.write_bytes(spoil_bytes(path.read_bytes(), draw))
            made.use_store()
        refused += bool(made.refused)
    assert refused > 30


def test_damaged_rows(trial: Make) -> None:
    refused = 0
    for seed in range(100):
        with trial() as made:
            spoil_rows(made.directory / "catalogue.sqlite", random.Random(seed))
            made.use_store()
        refused += bool(made.refused)
    assert refused > 40


def test_damaged_states(trial: Make) -> None:
    refused = 0
    for seed in range(60):
        with trial() as made:
            draw = random.Random(seed)
            spoil_memory(draw.choice(sorted((made.directory / "states").iterdir())), draw)
            made.use_store()
        refused += bool(made.refused)
    assert refused > 20


def test_damaged_exports(trial: Make, whole: Path, around: Path) -> None:
    refused = 0
    for seed in range(250):
        with trial(copied=False) as made:
            path, draw = made.directory.parent / "store" / "spoiled", random.Random(seed)
            path.parent.mkdir()
            shutil.copy(whole / draw.choice(("ann.memory", "eve.memory")), path)
            spoil_archive(path, draw)
            made.use_archive(path)
            path.unlink()
        refused += bool(made.refused)
    assert refused > 180


def test_damaged_memory_files(trial: Make, whole: Path) -> None:
    refused = 0
    for seed in range(200):
        with trial(copied=False) as made:
            path = made.directory / "spoiled"
            path.parent.mkdir()
            shutil.copy(whole / "one.safetensors", path)
            spoil_memory(path, random.Random(seed))
            made.use_memory(path)
            path.unlink()
        refused += bool(made.refused)
    assert refused > 150
