"""What it costs to keep a session: in a store, for a million tokens, and to come back to it.

`store` reads short turns with the model of the other benchmarks. `live` is the shipped model, in a
store as users keep theirs; full attention of the same sizes reads the same turns in memory, which
is the cheaper way, for PATIENCE_SECONDS.
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

from slowwave.lab.bench.measure import Machine, Pause, Work, measure_paused, time_in_turn
from slowwave.lab.bench.models import MODEL, load_native
from slowwave.lab.bench.report import Row, Section, timed_row
from slowwave.memory.ledger import Entry
from slowwave.memory.session import Session
from slowwave.memory.store import Store
from slowwave.memory.stored_session import StoredSession
from slowwave.memory.talker import Talker, load
from slowwave.models.backbone import HybridLM
from slowwave.sleep.config import SleepConfig
from slowwave.storage.tokenizer import ByteTokenizer

ROUNDS = 41
WINDOW = 512
PASSES = 4
STORE_TURN = 64
"""Bytes that are read in a turn of `store`."""
SHIPPED = Path("checkpoints/talk")
TOKENS = 1_000_000
TURN = 1000
"""Tokens that are read in a turn of `live`."""
PARTS = 10
"""Resident memory and time are looked at after each tenth."""
PATIENCE_SECONDS = 120
"""For all that full attention reads."""
SOONER = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Turns after which full attention is looked at."""
PROMPT = "where do I live?"


def run_store(device: torch.device, machine: Machine) -> list[Section]:
    """Reads the same turns in memory and with a store, and opens a third session each time."""
    model = HybridLM(MODEL).eval().to(device)
    talker = Talker(model, ByteTokenizer(), SleepConfig(window=WINDOW, passes=PASSES), None)
    text = "x" * STORE_TURN
    with _stored(talker) as (store, kept):
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
    what = f"a turn of {STORE_TURN} tokens"
    rows = [
        timed_row(what, "in memory", times),
        timed_row(what, "on disk", times, reference="in memory", nbytes=state),
        timed_row("opening a session", "on disk", {"on disk": times["opened"]}),
    ]
    note = (
        f"{model.num_parameters / 1e6:.1f} M parameters, windows of {WINDOW} tokens, N = {PASSES}; "
        "nbytes: the state file, which every turn writes anew"
    )
    return [Section(title="Sessions in a store", rows=rows, notes=[note])]


def run_live(device: torch.device, machine: Machine) -> list[Section]:
    """Raises ValueError where the shipped model is not at hand."""
    if not SHIPPED.exists():
        raise ValueError(f"{SHIPPED} is not here; call it in a checkout of slowwave")
    return [*_measure_stream(), _measure_coming_back()]


def read_endless(tokens: str) -> Iterator[int]:
    """Reads so many tokens through a stored session; yields nanoseconds a token, tenth by tenth."""
    load_native()
    with _stored(load(SHIPPED)) as (_, session):
        turns = int(tokens) // TURN
        for part in range(PARTS):
            first, last = part * turns // PARTS, (part + 1) * turns // PARTS
            times = [_time_turn(session, turn) for turn in range(first, last)]
            yield _nanoseconds_a_token(times)


def read_with_full_attention(patience_seconds: str) -> Iterator[int]:
    """Reads the same turns and forgets none; yields nanoseconds a token of the turns in SOONER."""
    load_native()
    talker = load(SHIPPED)
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


@contextlib.contextmanager
def _stored(talker: Talker) -> Iterator[tuple[Store, StoredSession]]:
    """A store in a folder of its own, with a new session "kept"."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Store(Path(folder)) as store,
        store.open("kept", talker, create=True) as session,
    ):
        yield store, session


def _time_turn(session: Session, turn: int) -> float:
    """Seconds of a turn of drawn tokens, the same for every session."""
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

    def row(by: str, context: int, pause: Pause) -> Row:
        return Row(
            what="reading a token",
            by=by,
            context=context,
            milliseconds=pause.value / 1e6,
            time_ratio=pause.value / second.value,
            ratio_to=f"the second {TOKENS // PARTS:,} tokens",
            nbytes=pause.nbytes,
            memory_ratio=pause.nbytes / second.nbytes,
        )

    rows = [
        row("a session in a store", (part + 1) * TOKENS // PARTS, pause)
        for part, pause in enumerate(parts)
    ]
    rows += [
        row("full attention in memory", turns * TURN, pause)
        for turns, pause in zip(SOONER, full, strict=False)
    ]
    note = (
        f"turns of {TURN:,} tokens, each on disk before the next; medians of a tenth; nbytes: "
        f"resident memory of the process; full attention was stopped after {PATIENCE_SECONDS} s"
    )
    return [Section(title=f"{TOKENS:,} tokens through one session", rows=rows, notes=[note])]


def _measure_coming_back() -> Section:
    """Opening a session, and its first token, beside a session that was never closed.

    Opening clears the processor's caches, so a session that was never closed is also timed right
    after another was opened.
    """
    load_native()
    talker = load(SHIPPED)
    with _stored(talker) as (store, kept):
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
    rows = [timed_row("opening a session", "from the store", times)]
    what, first = "a prompt and the first token of its reply", "never closed"
    rows += [timed_row(what, by, times, reference=None if by == first else first) for by in firsts]
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
