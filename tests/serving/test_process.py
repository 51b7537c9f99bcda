"""A server as a process: clients that hang up, signals, restarts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from serving_app import MODEL, Make, chat, listen
from slowwave.memory.replay import replay
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker
from slowwave.runtime import model_folder
from slowwave.runtime.config import ChatFormat
from slowwave.runtime.model_folder import TalkerConfig
from slowwave.serving import run as serving_run
from slowwave.serving.config import ServeConfig
from slowwave.serving.run import describe_memories
from slowwave.sleep.awake import read_awake
from tiny_models import TWO_LAYERS

TALE = {"model": "tiny", "prompt": "Once upon a time", "memory": "ann", "max_tokens": 4000}
PATIENCE = 60


def read_texts(lines: Iterator[str], count: int) -> str:
    """The text of so many events with text."""
    said = ""
    while count:
        line = next(lines)
        if line.startswith("data: {") and (piece := json.loads(line[6:])["choices"][0]["text"]):
            said, count = said + piece, count - 1
    return said


def test_a_client_that_hangs_up_ends_its_reply(make: Make, talker: Talker, tmp_path: Path) -> None:
    with listen(make()) as address, httpx2.Client(base_url=address) as client:
        with client.stream("POST", "/v1/completions", json={**TALE, "stream": True}) as tale:
            said = read_texts(tale.iter_lines(), 5)
        body = {**TALE, "prompt": "And then", "max_tokens": 3}
        after = client.post("/v1/completions", json=body)
        assert after.status_code == 200
    with Store(tmp_path / "memories") as store, store.open("ann", talker) as kept:
        told, reply, then, _ = kept.ledger()
        assert (told.text, then.text) == (TALE["prompt"], "And then")
        assert reply.text.startswith(said)
        assert 5 <= len(reply.tokens) < 4000
        again = replay(lambda: talker.session(), kept.ledger())
        assert all(map(lambda a, b: a.equal(b), kept.state.fast_weights, again.state.fast_weights))


def test_a_client_that_wants_no_stream_may_hang_up_too(
    make: Make, talker: Talker, tmp_path: Path
) -> None:
    app = make()
    with listen(app) as address:
        host, port = address.removeprefix("http://").split(":")
        body = json.dumps(TALE).encode()
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
            connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
            while not (session := app.state.server.sessions.peek(("", "ann"))) or (
                session.status().tokens_seen < 20
            ):
                time.sleep(0.01)
        while app.state.server._num_turns:
            time.sleep(0.01)
    with Store(tmp_path / "memories") as store:
        told, reply = store.entries("ann")
    assert (told.kind, reply.kind) == ("told", "reply")
    assert len(reply.tokens) < 4000


def test_a_client_that_hangs_up_before_the_first_token_was_not_there(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_slowly(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.02)  # so that the prompt takes minutes, and lets the event loop run
        return read_awake(*arguments, **options)

    monkeypatch.setattr("slowwave.memory.session.read_awake", read_slowly)
    app = make()
    with listen(app) as address:
        body = {**TALE, "prompt": "x" * 200_000, "stream": True}
        with httpx2.stream("POST", f"{address}/v1/completions", json=body) as tale:
            assert next(tale.iter_lines()) in (": reading", ": sleeping")
        while app.state.server._num_turns:
            time.sleep(0.01)
    with Store(tmp_path / "memories") as store:
        assert store.entries("ann") == []


# A process of its own.


@pytest.fixture
def folder(tmp_path: Path, talker: Talker) -> Path:
    assert isinstance(talker.chat, ChatFormat)
    config = TalkerConfig(model=TWO_LAYERS, sleep=talker.sleep, chat=talker.chat)
    model_folder.save(tmp_path / "tiny", MODEL, talker.tokenizer, config)
    return tmp_path / "tiny"


def start_command(folder: Path, memories: Path, port: int, *before: str) -> subprocess.Popen[str]:
    """slowwave serve, by other programs that come before it."""
    arguments = [str(folder), "--memory-dir", str(memories), "--port", str(port)]
    return subprocess.Popen(
        [*before, sys.executable, "-m", "slowwave.cli", "serve", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_process(folder: Path, memories: Path, *before: str) -> tuple[subprocess.Popen[str], str]:
    """A server, and its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = start_command(folder, memories, port, *before)
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            httpx2.get(f"{address}/health")
            return process, address
        except httpx2.TransportError:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
    process.kill()
    raise AssertionError("the server did not start")


def test_a_signal_loses_nothing_that_was_acknowledged(
    folder: Path, tmp_path: Path, talker: Talker
) -> None:
    """Under load; a second server knows all of it, and takes no offence at what was open."""
    memories = tmp_path / "memories"
    process, address = start_process(folder, memories)
    acknowledged: list[list[str]] = [[] for _ in range(6)]
    ends: list[Any] = []

    def talk(number: int) -> None:
        with httpx2.Client(base_url=address, timeout=PATIENCE) as client:
            while True:
                body = chat(f"No {len(acknowledged[number])}.", memory=f"m{number}")
                try:
                    answer = client.post("/v1/chat/completions", json=body)
                except httpx2.TransportError:
                    return
                if answer.status_code != 200:
                    assert answer.status_code == 503, answer.text
                    return
                acknowledged[number].append(answer.json()["choices"][0]["message"]["content"])

    def listen_to_a_tale() -> None:
        body = {**TALE, "stream": True}
        with httpx2.stream(
            "POST", f"{address}/v1/completions", json=body, timeout=PATIENCE
        ) as tale:
            lines = [line for line in tale.iter_lines() if line.startswith("data: ")]
        ends.extend(lines[-2:])

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(6)]
    threads.append(threading.Thread(target=listen_to_a_tale))
    for thread in threads:
        thread.start()
    while not all(len(said) > 2 for said in acknowledged):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=PATIENCE)
    for thread in threads:
        thread.join()
    assert "Traceback" not in log
    assert process.returncode == -signal.SIGTERM
    assert ends[1] == "data: [DONE]"
    assert json.loads(ends[0][6:])["choices"][0]["finish_reason"] == "length"
    with Store(memories) as store:
        for number, said in enumerate(acknowledged):
            replies = [e.text[:-1] for e in store.entries(f"m{number}") if e.kind == "reply"]
            assert replies[: len(said) - 1] == said[:-1]
            assert replies[len(said) - 1].startswith(said[-1])  # may break off within a character
            assert len(replies) <= len(said) + 1
        tale = store.entries("ann")
    assert [entry.kind for entry in tale] == ["told", "reply"]
    assert 0 < len(tale[1].tokens) < 4000

    process, address = start_process(folder, memories)
    try:
        body = chat("Go on.", memory="m0")
        answer = httpx2.post(f"{address}/v1/chat/completions", json=body).json()
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
    alone = talker.session()
    with Store(memories) as store:
        ledger = store.entries("m0")
    for entry in ledger[:-2]:
        alone.repeat(entry)
    expected = alone.generate("Go on.", max_new_tokens=9)
    assert answer["choices"][0]["message"]["content"] == expected


def test_a_terminal_that_is_closed_ends_a_server_as_other_signals_do(
    folder: Path, tmp_path: Path
) -> None:
    process, address = start_process(folder, tmp_path / "memories")
    body = {**TALE, "stream": True}
    with httpx2.stream("POST", f"{address}/v1/completions", json=body, timeout=PATIENCE) as tale:
        lines = tale.iter_lines()
        read_texts(lines, 3)
        process.send_signal(signal.SIGHUP)
        assert [line for line in lines if line][-1] == "data: [DONE]"
    _, log = process.communicate(timeout=PATIENCE)
    assert (process.returncode, "Traceback" in log) == (-signal.SIGHUP, False)
    with Store(tmp_path / "memories") as store:
        assert [entry.kind for entry in store.entries("ann")] == ["told", "reply"]


def test_nohup_keeps_a_server_running(folder: Path, tmp_path: Path) -> None:
    process, address = start_process(folder, tmp_path / "memories", "nohup")
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert httpx2.get(f"{address}/health").json()["status"] == "ok"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGTERM


def test_a_busy_port_is_one_sentence_before_anything_else(folder: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        process = start_command(folder, tmp_path / "memories", port)
        _, log = process.communicate(timeout=PATIENCE)
    sentence = f"--port is {port}, where another program listens already; use another"
    assert (process.returncode, log) == (2, f"slowwave: {sentence}\n")
    assert not (tmp_path / "memories").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": "0.0.0.0"}, "--host is 0.0.0.0, which others can reach, and there are no API"),
        ({"host": "example.org"}, "--host is example.org, which others can reach"),
        ({"api_keys": "nowhere"}, "nowhere: no such file; name a file of lines"),
        ({"model": "nowhere"}, "nowhere: no such folder"),
        (
            {"config": ServeConfig(origins=("*",))},
            r"serve\.origins names pages that may ask with a",
        ),
    ],
)
def test_what_cannot_be_served(
    folder: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    defaults = {"model": folder, "host": "127.0.0.1", "port": 0, "api_keys": None}
    settings = {**defaults, "model_name": None, "config": ServeConfig(), **options}
    with pytest.raises(ValueError, match=message):
        serving_run.serve(settings.pop("model"), memory_dir=tmp_path / "memories", **settings)
    assert not (tmp_path / "memories").exists()


def test_a_directory_that_is_none_is_told_before_anything_is_served(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """uvicorn would write a traceback, and end with another number than other mistakes."""
    file = tmp_path / "file"
    file.write_text("")
    settings = {"host": "127.0.0.1", "port": 0, "api_keys": None, "model_name": None}
    with pytest.raises(OSError, match="not a directory"):
        serving_run.serve(folder, memory_dir=file, config=ServeConfig(), **settings)
    assert "serving" not in capsys.readouterr().err


def test_memories_are_counted(tmp_path: Path, talker: Talker) -> None:
    assert describe_memories(tmp_path / "m", has_owners=False) == f"0 memories in {tmp_path / 'm'}"
    assert not (tmp_path / "m").exists()
    _fill(tmp_path, talker, "ann")
    assert describe_memories(tmp_path, has_owners=False) == f"1 memory in {tmp_path}"


def test_owners_are_counted_and_damage_is_named(tmp_path: Path, talker: Talker) -> None:
    _fill(tmp_path, talker, "nobody's")
    _fill(tmp_path / "ann", talker, "a", "b")
    _fill(tmp_path / "bob", talker)
    for folder in ("carl", "dora"):
        (tmp_path / folder).mkdir()
    (tmp_path / "carl" / "catalogue.sqlite").write_bytes(b"no catalogue" * 100)
    assert describe_memories(tmp_path, has_owners=True) == (
        f"2 memories of 2 owners in {tmp_path}; cannot be opened: carl"
    )


def _fill(directory: Path, talker: Talker, *names: str) -> None:
    with Store(directory) as store:
        for name in names:
            store.open(name, talker, create=True).close()
