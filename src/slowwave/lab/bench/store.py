"""What it costs to keep a session: a turn on disk beside one in memory, and opening it again."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from pathlib import Path

import torch

from slowwave.lab.bench.machine import Machine
from slowwave.lab.bench.models import MODEL
from slowwave.lab.bench.report import Section, timed_row
from slowwave.lab.bench.timing import Work, time_in_turn
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker
from slowwave.models.backbone import HybridLM
from slowwave.sleep.config import SleepConfig
from slowwave.storage.tokenizer import ByteTokenizer

WINDOW = 512
PASSES = 4
TURN = 64
"""Bytes that are read in a turn."""
ROUNDS = 41


def run_store(device: torch.device, machine: Machine) -> list[Section]:
    """Reads the same turns in memory and with a store, and opens a third session each time."""
    model = HybridLM(MODEL).eval().to(device)
    talker = Talker(model, ByteTokenizer(), SleepConfig(window=WINDOW, passes=PASSES))
    text = "x" * TURN
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(Store(Path(folder))) as store,
        store.open("kept", talker, create=True) as kept,
    ):
        with store.open("opened", talker, create=True) as opened:
            opened.read(text)
        plain = talker.session()
        times = time_in_turn(
            {
                "in memory": Work(functools.partial(plain.read, text)),
                "on disk": Work(functools.partial(kept.read, text)),
                "opened": Work(lambda: store.open("opened", talker).close()),
            },
            rounds=ROUNDS,
        )
        state = store.info("kept").nbytes
    reference = ("in memory", times["in memory"])
    what = f"a turn of {TURN} tokens"
    rows = [
        timed_row(what, "in memory", times["in memory"]),
        timed_row(what, "on disk", times["on disk"], reference=reference, nbytes=state),
        timed_row("opening a session", "on disk", times["opened"]),
    ]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    notes = [
        f"{parameters / 1e6:.1f} M parameters, windows of {WINDOW} tokens, N = {PASSES}; nbytes: "
        "the state file, which every turn writes anew",
    ]
    return [Section(title="Sessions in a store", rows=rows, notes=notes)]
