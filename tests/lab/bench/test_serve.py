"""What the load on a server would leave if turns were lost, or memories mixed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from slowwave.lab.bench import serve
from slowwave.lab.bench.serve import Check, Talk, check, percentile
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker, load

SMALL = dataclasses.replace(serve.MODEL, width=32, mlp_hidden=48, key_dim=8, value_dim=8)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Talker, Path, Talk]:
    """A model, memories, and what was acknowledged of one of them."""
    monkeypatch.setattr(serve, "MODEL", SMALL)
    monkeypatch.setattr(serve, "WINDOW", 16)
    folder, memories, talk = tmp_path / "model", tmp_path / "memories", Talk("memory-0")
    serve.save_model(folder)
    talker = load(folder)
    with Store(memories) as store:
        for name in ("memory-0", "memory-1"):
            with store.open(name, talker, create=True) as session:
                session.read(f"{name}: hello")
                session.generate(f"{name}: who?", max_new_tokens=3)
        told, asked, reply = store.entries("memory-0")
    talk.said = [("told", told.text), ("told", asked.text), ("reply", reply.text[:-1])]
    return talker, memories, talk


def test_what_was_acknowledged_is_there(place: tuple[Talker, Path, Talk]) -> None:
    found = check(*place)
    assert (found.lost, found.is_mixed) == (0, False)
    assert found.tokens > 30


@pytest.mark.parametrize(
    ("spoil", "lost"),
    [
        (lambda said: [*said, ("told", "more")], 1),
        (lambda said: [said[0], ("told", "other"), said[2]], 1),
        (lambda said: [said[1], said[0], said[2]], 2),
        (lambda said: [*said[:2], ("reply", "other")], 1),
        (lambda said: [("told", said[0][1][:-1]), *said[1:]], 1),
        (lambda said: [*said[:2], ("reply", said[2][1][:-1])], 0),  # broken off by SIGTERM
    ],
)
def test_lost_entries_are_counted(
    place: tuple[Talker, Path, Talk],
    spoil: Callable[[list[tuple[str, str]]], list[tuple[str, str]]],
    lost: int,
) -> None:
    talker, memories, talk = place
    talk.said = spoil(talk.said)
    assert check(talker, memories, talk).lost == lost


def test_mixed_memories_are_found(place: tuple[Talker, Path, Talk]) -> None:
    talker, memories, talk = place
    with contextlib.closing(sqlite3.connect(memories / "catalogue.sqlite")) as catalogue:
        heads = "SELECT file FROM points JOIN sessions ON points.id = head ORDER BY name"
        ours, theirs = (memories / "states" / file for (file,) in catalogue.execute(heads))
    ours.write_bytes(theirs.read_bytes())
    assert check(talker, memories, talk).is_mixed


def test_foreign_texts_are_found(place: tuple[Talker, Path, Talk]) -> None:
    talker, memories, talk = place
    with Store(memories) as store, store.open("memory-0", talker) as session:
        session.read("memory-1: hello")
    assert check(talker, memories, talk) == Check(0, True, session.state.counters.tokens_seen)


def test_percentiles() -> None:
    assert percentile([5.0, 1.0, 3.0], 0.5) == 3.0
    assert percentile([float(i) for i in range(1, 101)], 0.99) == 99.0
    assert percentile([2.0], 0.99) == 2.0


def test_a_pause_longer_than_the_server_s_patience_ends_no_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Impatient(BaseHTTPRequestHandler):
        protocol_version, timeout = "HTTP/1.1", 0.02

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            said = {"choices": [{"message": {"content": "yes"}}], "sleeps": []}
            memory = {"window_fill": 0, "sleeps": []}
            answer = json.dumps(said | {"memory": memory, "status": memory}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    monkeypatch.setattr(serve, "PAUSE", 0.2)
    talk, stop = Talk("memory-0"), threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Impatient) as server:
        threading.Thread(target=server.serve_forever).start()
        talking = threading.Thread(target=serve._talk, args=(server.server_port, talk, stop))
        talking.start()
        time.sleep(2)
        stop.set()
        talking.join()
        server.shutdown()
    assert talk.turns > 5
