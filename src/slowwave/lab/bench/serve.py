"""A server under load: many memories that read, sleep and reply at once, and what became of them.

The server is a process of its own, ended by SIGTERM in the middle of its work. Then every ledger is
held against what was acknowledged, and every state against a replay of its ledger, to the bit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import http.client
import itertools
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import torch

from slowwave.lab.bench.kills import is_same
from slowwave.lab.bench.measure import LOG, Machine
from slowwave.lab.bench.models import MODEL
from slowwave.lab.bench.report import Row, Section
from slowwave.memory.replay import replay
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker
from slowwave.memory.talker import load as load_talker
from slowwave.models.backbone import HybridLM
from slowwave.runtime import model_folder
from slowwave.runtime.config import ChatFormat
from slowwave.sleep.config import SleepConfig
from slowwave.storage.tokenizer import ByteTokenizer

WINDOW = 512
PASSES = 4
SESSIONS = 100
SECONDS = 600.0
"""Of the mixed load."""
PAUSE = 10.0
"""Seconds that a session waits at most between two turns."""
REPLY = 8
"""Tokens of a reply."""
PROBES = 300
"""Short completions that are timed with a sleep beside them, and as many without."""
BLOCK = 15
"""Of these, those that follow each other before the others have their turn."""
SETTLING = 0.2
"""Seconds in which a sleep begins, or ends."""
PATIENCE = 120
"""Seconds that anything may take."""
CHECKERS = 2
"""Threads that replay ledgers afterwards."""


@dataclasses.dataclass
class Talk:
    """What one session was told, and has acknowledged."""

    name: str
    said: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    """(kind, text) of entries, texts of replies as they were received."""
    turns: int = 0
    num_sleeps: int = 0
    seconds: list[float] = dataclasses.field(default_factory=list)
    """Of its short completions."""
    num_rejected: int = 0


@dataclasses.dataclass
class Check:
    """What became of a session."""

    lost: int = 0
    """Acknowledged entries that are not in the ledger, or not as they were."""
    is_mixed: bool = False
    """Whether anything is in the ledger that was not said to this memory, or its state is unlike a
    replay of the ledger."""
    tokens: int = 0


def run_serve(
    device: torch.device, machine: Machine, *, seconds: float | None = None
) -> list[Section]:
    """Short completions alone and beside a sleep, then a load of `seconds`, SECONDS if None."""
    seconds = SECONDS if seconds is None else seconds
    with tempfile.TemporaryDirectory() as place:
        folder, memories = Path(place) / "model", Path(place) / "memories"
        save_model(folder)
        with _served(folder, memories) as (process, port):
            quiet, beside = time_beside_sleep(port)
            talks = load(process, port, seconds)
        talker = load_talker(folder)
        with ThreadPool(CHECKERS, torch.set_num_threads, (1,)) as pool:
            checks = list[Check]()
            for each in pool.imap(functools.partial(check, talker, memories), talks):
                checks.append(each)
                LOG.info("checked %d of %d memories", len(checks), len(talks))
    return [_describe_load(talks, checks, seconds), _describe_probes(quiet, beside, talks)]


def load(process: subprocess.Popen[bytes], port: int, seconds: float) -> list[Talk]:
    """SESSIONS that talk to a server for so long, until SIGTERM comes between."""
    talks, stop = [Talk(f"memory-{number}") for number in range(SESSIONS)], threading.Event()
    threads = [threading.Thread(target=_talk, args=(port, talk, stop)) for talk in talks]
    for thread in threads:
        thread.start()
    try:
        for second in range(math.ceil(seconds)):
            LOG.info("load of %d sessions: %d of %g s", SESSIONS, second, seconds)
            time.sleep(min(1.0, seconds - second))
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return talks


def time_beside_sleep(port: int) -> tuple[list[float], list[float]]:
    """Seconds of short completions while nothing else happens, and while a memory sleeps."""
    times = (list[float](), list[float]())
    sleeps, done = threading.Event(), threading.Event()
    sleeper = threading.Thread(target=_sleep_again, args=(port, sleeps, done))
    sleeper.start()
    try:
        with _connect(port) as client:
            blocks = 2 * math.ceil(PROBES / BLOCK)
            for number in range(blocks):
                LOG.info("short completions: block %d of %d", number + 1, blocks)
                (sleeps.set if number % 2 else sleeps.clear)()
                time.sleep(SETTLING)
                for _ in range(BLOCK):
                    began = time.perf_counter()
                    client.post("/v1/completions", {"prompt": "Who?", "max_tokens": REPLY})
                    times[number % 2].append(time.perf_counter() - began)
    finally:
        done.set()
        sleeps.set()
        sleeper.join()
    return times


def check(talker: Talker, memories: Path, talk: Talk) -> Check:
    """Holds a ledger against what was acknowledged, and a state against its replay."""
    with Store(memories) as store, store.open(talk.name, talker, create=True) as session:
        ledger, state = session.ledger(), session.state
    found = [(entry.kind, entry.text) for entry in ledger]
    foreign = any(entry.kind == "told" and f"{talk.name}:" not in entry.text for entry in ledger)
    again = replay(lambda: talker.session(), ledger)
    return Check(
        lost=_count_lost(talk.said, found),
        is_mixed=foreign or not is_same(state, again.state),
        tokens=state.counters.tokens_seen,
    )


def _count_lost(said: Sequence[tuple[str, str]], found: Sequence[tuple[str, str]]) -> int:
    """Acknowledged entries that are not in the ledger, or not as they were acknowledged."""
    lost = max(0, len(said) - len(found))
    for place, ((kind, text), (found_kind, found_text)) in enumerate(
        zip(said, found, strict=False)
    ):
        is_whole = found_text in (text, f"{text}\n")
        # SIGTERM may have broken the last one off within a character.
        is_last = place >= len(said) - 1 and found_text.startswith(text)
        lost += kind != found_kind or not (is_whole or is_last)
    return lost


class Client(http.client.HTTPConnection):
    """A connection to the server."""

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer; raises Rejected with the status if that is not 200."""
        fields = {"model": "model", **body} if path.endswith("completions") else body
        self.request("POST", path, json.dumps(fields), {"Content-Type": "application/json"})
        response = self.getresponse()
        answer = json.loads(response.read())
        if response.status != 200:
            raise Rejected(response.status, answer)
        return answer


class Rejected(Exception):
    """A request that was answered with a status other than 200."""


def _connect(port: int) -> contextlib.closing[Client]:
    return contextlib.closing(Client("127.0.0.1", port, timeout=PATIENCE))


def _talk(port: int, talk: Talk, stop: threading.Event) -> None:
    """Turns of every kind, with pauses, until the server is gone."""
    choices, fill = random.Random(talk.name), 0
    for turn in itertools.count():
        if stop.wait(choices.uniform(0, PAUSE)):
            return
        kind = choices.choices(("reply", "read", "sleep"), (6, 3, 1 if fill else 0))[0]
        words = " ".join(f"{choices.randrange(1000)}" for _ in range(choices.randrange(4, 60)))
        try:
            # A server closes connections that are silent for long, so each turn has its own.
            with _connect(port) as client:
                fill = _take_turn(client, talk, kind, f"{talk.name}: {turn}: {words}")
        except Rejected as rejection:
            if rejection.args[0] == 503:
                return
            talk.num_rejected += 1
        except (OSError, http.client.HTTPException):
            return


def _take_turn(client: Client, talk: Talk, kind: str, text: str) -> int:
    """Tokens in the window after it."""
    path = f"/v1/memories/{talk.name}"
    if kind == "sleep":
        answer = client.post(f"{path}/sleep", {})
        talk.said.append(("sleep", ""))
        talk.num_sleeps += 1
    elif kind == "read":
        answer = client.post(f"{path}/read", {"text": text})
        talk.said.append(("told", text))
        talk.num_sleeps += len(answer["sleeps"])
    else:
        messages = [{"role": "user", "content": text[:64]}]
        began = time.perf_counter()
        answer = client.post(
            "/v1/chat/completions", {"messages": messages, "memory": talk.name, "max_tokens": REPLY}
        )
        talk.seconds.append(time.perf_counter() - began)
        said = answer["choices"][0]["message"]["content"]
        talk.said += [("told", f"> {text[:64].strip()}\n"), ("reply", said)]
        talk.num_sleeps += len(answer["memory"]["sleeps"])
        answer = {"status": answer["memory"]}
    talk.turns += 1
    return answer["status"]["window_fill"]


def _sleep_again(port: int, wanted: threading.Event, done: threading.Event) -> None:
    """One memory that falls asleep on the same full window whenever this is wanted."""
    path = "/v1/memories/sleeper"
    with _connect(port) as client:
        client.post(f"{path}/read", {"text": "x" * (WINDOW - 1)})
        client.post(f"{path}/snapshots", {"name": "awake"})
        while wanted.wait() and not done.is_set():
            client.post(f"{path}/sleep", {})
            client.post(f"{path}/rollback", {"snapshot": "awake"})


def save_model(folder: Path) -> None:
    """Writes MODEL, to be talked to."""
    model = HybridLM(MODEL).eval()
    sleep = SleepConfig(window=WINDOW, passes=PASSES)
    config = model_folder.TalkerConfig(model=model.config, sleep=sleep, chat=ChatFormat())
    model_folder.save(folder, model, ByteTokenizer(), config)


@contextlib.contextmanager
def _served(folder: Path, memories: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["serve", str(folder), "--memory-dir", str(memories), "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", "slowwave.cli", *command, "--model-name", "model"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(process, port)
        yield process, port
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise OSError("the server did not start; run 'slowwave serve' to see why")


def percentile(seconds: Sequence[float], share: float) -> float:
    """The smallest of these which at most 1 - share of them exceed."""
    return sorted(seconds)[max(0, math.ceil(share * len(seconds)) - 1)]


def _describe_load(talks: Sequence[Talk], checks: Sequence[Check], seconds: float) -> Section:
    counted = {
        "sessions at once": len(talks),
        "acknowledged turns": sum(talk.turns for talk in talks),
        "tokens read and written": sum(check.tokens for check in checks),
        "acknowledged sleeps": sum(talk.num_sleeps for talk in talks),
        "requests refused": sum(talk.num_rejected for talk in talks),
        "acknowledged entries that were lost": sum(check.lost for check in checks),
        "memories that were mixed": sum(check.is_mixed for check in checks),
    }
    notes = [
        f"{seconds:g} seconds, pauses of up to {PAUSE:g} between two turns of a session; ended by "
        "SIGTERM; mixed: something of others in the ledger, or a state unlike a replay, to the bit"
    ]
    rows = [Row(what=what, by="server", count=count) for what, count in counted.items()]
    return Section(title="A server under load", rows=rows, notes=notes)


def _describe_probes(
    quiet: Sequence[float], beside: Sequence[float], talks: Sequence[Talk]
) -> Section:
    loaded = [seconds for talk in talks for seconds in talk.seconds]
    rows = list[Row]()
    for name, share in (("median", 0.5), ("p99", 0.99)):
        first = percentile(quiet, share)
        for by, times in (("alone", quiet), ("another sleeps", beside), ("under load", loaded)):
            if not times:
                continue
            value = percentile(times, share)
            rows.append(
                Row(
                    what=f"a short completion, {name}",
                    by=by,
                    count=len(times),
                    milliseconds=1000 * value,
                    time_ratio=None if times is quiet else value / first,
                    ratio_to=None if times is quiet else "alone",
                )
            )
    parameters = HybridLM(MODEL).num_parameters
    notes = [
        f"{REPLY} tokens by {parameters / 1e6:.1f} M parameters; sleeps of {PASSES} passes over "
        f"{WINDOW - 1} tokens follow each other; under load, {SESSIONS} sessions as above, each "
        "reply also waits for the disk"
    ]
    return Section(title="A short completion", rows=rows, notes=notes)
