"""What earlier versions wrote is read: kept as they wrote it, catalogue, exports and memory file.

earlier_formats.zip: a memory directory (catalogue of format 2, states of format 1), exports of two
of its sessions (format 2) and a memory file (format 1), of the model below.
"""

from __future__ import annotations

import contextlib
import sqlite3
import zipfile
from pathlib import Path

import pytest
import torch

from byte_tokenizer import ByteTokenizer
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker
from slowwave.models.backbone import HybridLM
from slowwave.models.config import ModelConfig
from slowwave.runtime.config import ChatFormat
from slowwave.sleep.config import SleepConfig
from slowwave.storage.memory_file import FORMAT, read_fast_weights, read_header

KEPT = Path(__file__).with_name("earlier_formats.zip")
SIZES = ModelConfig(
    vocab_size=256,
    width=8,
    layers=("attn", "gdn"),
    mlp_hidden=8,
    attn_heads=2,
    delta_heads=1,
    key_dim=4,
    value_dim=4,
)

COUNTS = {"ann": (6, 56, 5, 2), "bob": (3, 30, 2, 6), "eve": (2, 27, 3, 0)}
"""Entries, tokens, sleeps, and tokens in the window."""


@pytest.fixture(scope="module")
def talker() -> Talker:
    """Its weights are the same everywhere, to the bit, and so is their fingerprint."""
    model = HybridLM(SIZES)
    with torch.no_grad():
        for number, (_, tensor) in enumerate(sorted(model.state_dict().items())):
            places = torch.arange(tensor.numel())
            tensor.copy_((((places * 7 + number) % 13 - 6) / 32).view(tensor.shape))
    return Talker(model, ByteTokenizer(), SleepConfig(window=12, passes=2), ChatFormat())


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    with zipfile.ZipFile(KEPT) as archive:
        archive.extractall(tmp_path)
    return tmp_path


def check(store: Store, talker: Talker, name: str, counts: tuple[int, int, int, int]) -> None:
    info = store.info(name)
    assert (info.num_entries, info.tokens_seen, info.num_sleeps, info.window_fill) == counts
    with store.open(name, talker) as session:
        session.generate("And now?", max_new_tokens=3)
        assert session.status().tokens_seen > counts[1]
    told = [entry.text for entry in store.entries(name) if entry.kind == "told"]
    assert told[-1] == "> And now?\n"


def test_a_catalogue_is_read_on(kept: Path, talker: Talker) -> None:
    with Store(kept / "memories") as store:
        assert [info.name for info in store.sessions()] == ["ann", "bob", "eve"]
        assert store.measure().leftovers == 0
        assert [snapshot.name for snapshot in store.info("ann").snapshots] == ["start", "monday"]
        assert store.entries("ann")[4].text == "> O\u00f9?\n"
        assert [slept.stop for slept in store.sleeps("ann")] == [12, 24, 36, 42, 54]
        assert store.rebuild("ann", talker) == []
        for name, counts in (
            ("ann", (6, 56, 5, 2)),
            ("bob", (3, 30, 2, 6)),
            ("eve", (2, 27, 3, 0)),
        ):
            check(store, talker, name, counts)
        gate = store.gate("eve")
        assert gate is not None
        assert gate.canaries[0].answer == "Ann"
        with store.open("ann", talker) as session:
            session.rollback("monday")
            session.read("Another way.")
            session.forget(session.preview_forgetting(places=[0]))
            session.rollback("start")


def test_what_was_deleted_before_it_was_counted_is_wiped(kept: Path) -> None:
    """Though there is no session any more."""
    path = kept / "memories" / "catalogue.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        for table in ("snapshots", "sessions", "points"):
            db.execute(f"DELETE FROM {table}")
    assert "> O\u00f9?\n".encode() in path.read_bytes()
    with Store(kept / "memories") as store:
        assert store.is_wiped()
        assert "> O\u00f9?\n".encode() not in path.read_bytes()


@pytest.mark.parametrize("name", ["ann", "eve"])
def test_an_export_is_taken_in(kept: Path, talker: Talker, name: str) -> None:
    with Store(kept / "elsewhere") as store, Store(kept / "memories") as memories:
        assert store.import_session(kept / f"{name}.memory").name == name
        for point in (name, "ann@monday") if name == "ann" else (name,):
            assert store.entries(point) == memories.entries(point)
        check(store, talker, name, COUNTS[name])


def test_a_memory_file_is_read_on(kept: Path, talker: Talker) -> None:
    file = kept / "one.safetensors"
    header = read_header(file)
    assert (header.format, header.checksum, header.tokens_seen) == (1, None, 27)
    assert [weights.shape for weights in read_fast_weights(file)] == [(1, 1, 4, 4)]
    session = talker.session()
    session.load(file)
    session.read("On it goes, and on.")
    session.save(file)
    header = read_header(file)
    assert (header.format, header.tokens_seen) == (FORMAT, 46)
    session.load(file)
