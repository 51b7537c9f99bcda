"""Processes killed at random moments of a conversation, and what their store has afterwards.

A kill ends a process, not the machine: what it tests is the order of writes and the transactions,
not that a disk keeps what it says it has synced.
"""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import random
import signal
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from slowwave.lab.bench.measure import LOG, Machine
from slowwave.lab.bench.report import Row, Section
from slowwave.memory.session import Session
from slowwave.memory.store import Store
from slowwave.memory.stored_session import StoredSession
from slowwave.memory.talker import Talker
from slowwave.models.backbone import HybridLM
from slowwave.models.config import ModelConfig
from slowwave.runtime.config import ChatFormat
from slowwave.sleep.config import SleepConfig
from slowwave.state import MemoryState
from slowwave.storage.tokenizer import ByteTokenizer

KILLS = 1000
LONGEST = 0.1
"""Seconds to a kill, at most: from the first turn, or from the start of the process."""
FROM_START = 0.25
"""The share of the latter."""
PATIENCE = 60
"""Seconds that a process may take to its first turn."""
KILLS_PER_SESSION = 25
TINY = ModelConfig(
    vocab_size=256,
    width=16,
    layers=("attn", "gdn"),
    mlp_hidden=24,
    attn_heads=2,
    delta_heads=2,
    key_dim=4,
    value_dim=4,
)


@dataclasses.dataclass
class KillCount:
    """What became of a number of kills."""

    kills: int = 0
    idle: int = 0
    """Kills before the first turn of their process was acknowledged."""
    entries: int = 0
    """Entries of acknowledged turns."""
    unopened: int = 0
    """Restarts that failed."""
    lost: int = 0
    """Restarts after which something acknowledged was missing or not as before."""
    unlike: int = 0
    """Restarts after which the state was not what a replay of the ledger leads to."""
    leftover_nbytes: int = 0
    """Bytes that no session needs, after the last restart."""


def run_kills(device: torch.device, machine: Machine) -> list[Section]:
    """Kills KILLS processes, and checks their store after each."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        count = kill_at_random(Path(folder), KILLS, seed=0)
        seconds = time.perf_counter() - began
    counted = {
        "kills at random moments": count.kills,
        "kills before a first turn": count.idle,
        "entries of acknowledged turns": count.entries,
        "restarts that did not open": count.unopened,
        "restarts that lost something acknowledged": count.lost,
        "restarts with a state unlike a replay": count.unlike,
        "bytes left over": count.leftover_nbytes,
    }
    rows = [Row(what=what, by="memory store", count=number) for what, number in counted.items()]
    note = f"{seconds:.0f} seconds; at most {1000 * LONGEST:.0f} ms after a start or first turn"
    return [Section(title="Killed at random moments", rows=rows, notes=[note])]


def kill_at_random(directory: Path, kills: int, *, seed: int) -> KillCount:
    """Starts a process that talks to a session of the store, and kills it, again and again.

    After each kill the store is opened here. The ledger must have every acknowledged entry, and the
    state must be that of a twin, a session in memory that repeats the ledger.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # a second of imports, once
    moments = random.Random(seed)
    count = KillCount()
    for start in range(0, kills, KILLS_PER_SESSION):
        name, twin = f"session {start}", make_talker().session()
        for _ in range(min(KILLS_PER_SESSION, kills - start)):
            inbox, outbox = context.Pipe(duplex=False)
            process = context.Process(target=_talk, args=(directory, name, outbox))
            process.start()
            outbox.close()
            if moments.random() > FROM_START:
                inbox.poll(PATIENCE)
            time.sleep(moments.uniform(0, LONGEST))
            process.kill()
            process.join()
            _check(directory, name, twin, _read_acknowledged(inbox), count)
            LOG.info("killed %d of %d", count.kills, kills)
    with Store(directory) as store:
        count.leftover_nbytes = store.measure().leftovers
    return count


def make_talker() -> Talker:
    """A model so small that most of a turn is writing it down."""
    sleep = SleepConfig(window=8, passes=2)
    return Talker(HybridLM(TINY), ByteTokenizer(), sleep, ChatFormat())


def _talk(directory: Path, name: str, outbox: Connection) -> None:
    """Takes turns of every kind until it is killed; sends the entries that are acknowledged."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that kills this one
    torch.set_num_threads(1)
    with Store(directory) as store, store.open(name, make_talker(), create=True) as session:
        for turn in itertools.count(session.status().num_entries):
            _take_turn(session, turn)
            outbox.send_bytes(str(session.status().num_entries).encode())


def _take_turn(session: StoredSession, turn: int) -> None:
    match turn % 4:
        case 0 if session.state.window_fill:
            session.sleep()
        case 1:
            session.generate(f"{turn}?", max_new_tokens=3)
        case 2:
            session.snapshot(f"before {time.time_ns()}")
            session.read(f"No {turn}.")
        case _:
            session.read(f"{turn}.")


def _read_acknowledged(inbox: Connection) -> int | None:
    """The entries that were acknowledged last; None if there was no turn."""
    acknowledged = None
    try:
        while True:
            acknowledged = int(inbox.recv_bytes())
    except EOFError:
        inbox.close()
        return acknowledged


def _check(
    directory: Path, name: str, twin: Session, acknowledged: int | None, count: KillCount
) -> None:
    """Opens the session, and lets its twin go through what is new."""
    count.kills += 1
    count.idle += acknowledged is None
    known = twin.entries
    try:
        with Store(directory) as store, store.open(name, make_talker(), create=True) as session:
            ledger, state = session.ledger(), session.state
    except (ValueError, OSError):
        count.unopened += 1
        return
    count.entries += max(0, (acknowledged or 0) - len(known))
    count.lost += len(ledger) < (acknowledged or 0) or ledger[: len(known)] != known
    for entry in ledger[len(known) :]:
        twin.repeat(entry)
    count.unlike += not is_same(state, twin.state)


def is_same(state: MemoryState, other: MemoryState) -> bool:
    """Whether counters and all tensors are equal, to the bit."""
    mine, theirs = state.tensors(), other.tensors()
    if state.counters != other.counters or mine.keys() != theirs.keys():
        return False
    return all(torch.equal(mine[name], theirs[name]) for name in mine)
