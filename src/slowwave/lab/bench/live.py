"""What living with the shipped model costs: a million tokens in one session, and coming back to it.

The session is kept in a store, as users keep theirs; full attention of the same sizes reads the
same turns in memory, which is the cheaper way, until it runs out of patience.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from slowwave.lab.bench.machine import Machine
from slowwave.lab.bench.memory import measure_paused
from slowwave.lab.bench.report import Row, Section, timed_row
from slowwave.lab.bench.timing import Work, time_in_turn
from slowwave.memory.ledger import Entry
from slowwave.memory.session import Session
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker, load
from slowwave.ops import native
from slowwave.sleep.config import SleepConfig

MODEL = Path("checkpoints/talk")
TOKENS = 1_000_000
TURN = 1000
"""Tokens that are read in a turn."""
PARTS = 10
"""Resident memory and time are looked at after each tenth."""
PATIENCE_SECONDS = 120
"""For all that full attention reads."""
SOONER = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Turns after which full attention is looked at."""
PROMPT = "where do I live?"
ROUNDS = 41


def run_live(device: torch.device, machine: Machine) -> list[Section]:
    """Raises ValueError where the shipped model is not at hand."""
    del device, machine
    if not MODEL.exists():
        raise ValueError(f"{MODEL} is not here; call it in a checkout of slowwave")
    return [*_measure_stream(), _measure_coming_back()]


def read_endless(tokens: str) -> Iterator[int]:
    """Reads so many tokens through a stored session; yields nanoseconds a token, tenth by tenth."""
    talker = _load()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(Store(Path(folder))) as store,
        store.open("endless", talker, create=True) as session,
    ):
        turns = int(tokens) // TURN
        for part in range(PARTS):
            first, last = part * turns // PARTS, (part + 1) * turns // PARTS
            times = [_time_turn(session, turn) for turn in range(first, last)]
            yield _nanoseconds_a_token(times)


def read_with_full_attention(patience_seconds: str) -> Iterator[int]:
    """Reads the same turns and forgets none; yields nanoseconds a token of the turns in SOONER."""
    talker = _load()
    attentive = SleepConfig(window=talker.sleep.window, eviction="none")
    session = talker._replace(sleep=attentive, chat=None).session()
    began = time.perf_counter()
    for turn in range(max(SOONER)):
        seconds = _time_turn(session, turn)
        session.entries.clear()
        if turn + 1 in SOONER:
            yield _nanoseconds_a_token([seconds])
        if time.perf_counter() - began > float(patience_seconds):
            return


def _load() -> Talker:
    if native.find_obstacle() is None:
        native.load()
    return load(MODEL)


def _time_turn(session: Session, turn: int) -> float:
    """Seconds of a turn of drawn tokens, the same for everybody."""
    generator = torch.Generator().manual_seed(turn)
    drawn = torch.randint(session.talker.tokenizer.vocab_size, (TURN,), generator=generator)
    tokens = tuple(drawn.tolist())
    text = session.talker.tokenizer.decode(tokens)
    entry = Entry(kind="told", time=time.time(), source="bench", text=text, tokens=tokens)
    began = time.perf_counter()
    session.repeat(entry)
    return time.perf_counter() - began


def _nanoseconds_a_token(seconds: list[float]) -> int:
    return round(1e9 * statistics.median(seconds) / TURN)


def _measure_stream() -> list[Section]:
    """Nothing where the system does not tell how much memory a process has."""
    parts = measure_paused(__name__, "read_endless", str(TOKENS))
    full = measure_paused(__name__, "read_with_full_attention", str(PATIENCE_SECONDS))
    if parts is None or full is None:
        return []
    second = parts[1]
    rows = [
        Row(
            what="reading a token",
            by="a session in a store",
            context=(part + 1) * TOKENS // PARTS,
            milliseconds=nanoseconds / 1e6,
            time_ratio=nanoseconds / second.value,
            ratio_to=f"the second {TOKENS // PARTS:,} tokens",
            nbytes=nbytes,
            memory_ratio=nbytes / second.nbytes,
        )
        for part, (nbytes, nanoseconds) in enumerate(parts)
    ]
    rows += [
        Row(
            what="reading a token",
            by="full attention in memory",
            context=turns * TURN,
            milliseconds=nanoseconds / 1e6,
            time_ratio=nanoseconds / second.value,
            ratio_to=rows[0].ratio_to,
            nbytes=nbytes,
            memory_ratio=nbytes / second.nbytes,
        )
        for turns, (nbytes, nanoseconds) in zip(SOONER, full, strict=False)
    ]
    notes = [
        f"turns of {TURN:,} tokens, each on disk before the next; medians of a tenth; nbytes: "
        f"resident memory of the process; full attention was stopped after {PATIENCE_SECONDS} s"
    ]
    return [Section(title=f"{TOKENS:,} tokens through one session", rows=rows, notes=notes)]


def _measure_coming_back() -> Section:
    """Opening a session, and its first token, beside a session that was never closed.

    Opening clears the processor's caches, so a session that was never closed is also timed right
    after another was opened.
    """
    talker = _load()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(Store(Path(folder))) as store,
        store.open("kept", talker, create=True) as kept,
    ):
        kept.read("> I live in Lisbon.\nNoted.\n" * 20)
        store.fork("kept", "closed")
        reopen = functools.partial(_reopen, store, talker)
        firsts = {
            "never closed": kept.fork,
            "never closed, another opened": functools.partial(_fork_after, reopen, kept),
            "opened again": reopen,
        }
        works = {by: Work(_say_first, prepare=prepare) for by, prepare in firsts.items()}
        works["from the store"] = Work(lambda: store.open("closed", talker).close())
        times = time_in_turn(works, rounds=ROUNDS)
    rows = [timed_row("opening a session", "from the store", times["from the store"])]
    what, reference = "a prompt and the first token of its reply", "never closed"
    for by in firsts:
        compared = None if by == reference else (reference, times[reference])
        rows.append(timed_row(what, by, times[by], reference=compared))
    note = "another opened: what a first token costs where the work of opening was before it"
    return Section(title="Coming back to a session", rows=rows, notes=[note])


def _reopen(store: Store, talker: Talker) -> Session:
    with store.open("closed", talker) as session:
        return session.fork()


def _fork_after(work: Callable[[], object], session: Session) -> Session:
    work()
    return session.fork()


def _say_first(session: Session) -> None:
    session.generate(PROMPT, max_new_tokens=1)
