"""A chat that a program leads, line by line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import slowwave
from slowwave.commands.process import BROKEN_PIPE
from slowwave.memory.session import Session
from slowwave.memory.store import Store
from slowwave.sleep.config import SleepConfig
from slowwave.storage.files import write_atomically

Call = Callable[..., str]
Chat = Callable[..., list[Any]]
SHORT = ("--max-new-tokens", 5)


@pytest.fixture
def alone(model: Path) -> Session:
    """A session in memory, which says what a chat must say."""
    talker = slowwave.load(model)
    return talker.session()


def test_one_document_for_each_line(model: Path, chat: Chat, alone: Session, folder: Path) -> None:
    opened, *told = chat(["I am Ann.", "", "/status", " /status"], model, *SHORT)
    assert opened == {"event": "opened", "restored": None}
    assert [document["event"] for document in told] == ["turn", "error", "status", "turn"]
    turns = [document["turn"] for document in told if document["event"] == "turn"]
    for turn, prompt in zip(turns, ("I am Ann.", " /status"), strict=True):
        before = len(alone.sleeps)
        assert turn["reply"] == alone.generate(prompt, max_new_tokens=5)
        assert turn["tokens_seen"] == alone.state.counters.tokens_seen
        numbers = [report["number"] for report in turn["sleeps"]]
        assert numbers == [report.number for report in alone.sleeps[before:]] != []
    assert turns[1]["new_tokens"] == turns[1]["tokens_seen"] - turns[0]["tokens_seen"]
    assert told[1]["error"] == "the message is empty; say something"
    assert told[2]["status"]["tokens_seen"] == turns[0]["tokens_seen"]
    assert list(folder.iterdir()) == [folder / "said"]


def test_a_restart_goes_on_exactly(model: Path, chat: Chat, alone: Session) -> None:
    memory = (model, "--memory", "ann", *SHORT)
    first = chat(["I am Ann.", "/sleep 3"], *memory)
    assert first[0]["restored"]["is_new"]
    expected = [alone.generate("I am Ann.", max_new_tokens=5)]
    alone.sleep(3)
    restored = chat(["Who am I?"], *memory)
    expected.append(alone.generate("Who am I?", max_new_tokens=5))
    assert [first[1]["turn"]["reply"], restored[1]["turn"]["reply"]] == expected
    found = restored[0]["restored"]
    assert (found["memory"], found["is_new"], found["turns"]) == ("ann", False, 1)
    assert found["tokens_seen"] == first[1]["turn"]["tokens_seen"]
    assert found["num_sleeps"] == first[2]["sleep"]["number"]
    assert chat([], model, "--memory", "bob")[0]["restored"]["others"] == ["ann"]


def test_commands(model: Path, chat: Chat) -> None:
    told = chat(
        [
            *("/help", "/ledger", "I am Ann.", "/sleep", "/sleep", "/ledger 1"),
            *("/snapshot before tea", "Something.", "/rollback before tea", "no"),
            *("/rollback before tea", "y", "/rollback before tea", "/status", "/quit", "never"),
        ],
        *(model, "--memory", "ann", *SHORT),
    )
    events = [document["event"] for document in told[1:]]
    assert events == [
        *("help", "ledger", "turn", "sleep", "error", "ledger", "snapshot", "turn"),
        *("rollback", "rollback", "rollback", "rollback", "rollback", "status"),
    ]
    assert set(told[1]["help"]) >= {"/status", "/sleep [N]", "/quit"}
    assert told[2]["ledger"] == []
    assert told[4]["sleep"]["trigger"] == "asked"
    assert "nothing was said since the last sleep" in told[5]["error"]
    assert [row["kind"] for row in told[6]["ledger"]] == ["sleep"]
    assert [document["rollback"] for document in told[9:14]] == [
        {"done": False, "lost_entries": 2},
        {"done": False},
        {"done": False, "lost_entries": 2},
        {"done": True, "wiped": True},
        {"done": True, "wiped": True},
    ]
    assert told[14]["status"]["num_entries"] == 3
    assert told[14]["status"]["snapshots"] == ["before tea"]


def test_forgetting(model: Path, chat: Chat, call: Call) -> None:
    notes = ("--read", "--source", "my notes", "--memory", "ann")
    call("generate", model, "The secret is XYZZY.", *notes)
    memory = (model, "--memory", "ann", *SHORT)
    lines = ["Hello", "/forget source my notes keep 2", "no", "/forget source my notes", "yes"]
    told = chat([*lines, "/ledger", "/forget 0", "/forget x", "/forget"], *memory)
    kept, dropped = told[2]["forget"]["preview"], told[4]["forget"]["preview"]
    assert [row["place"] for row in kept["dropped"]] == [0]
    assert [row["place"] for row in dropped["dropped"]] == [0, 2]
    assert [told[3]["forget"], told[5]["forget"]] == [
        {"done": False},
        {"done": True, "wiped": True},
    ]
    assert [row["text"] for row in told[6]["ledger"]] == ["> Hello\n"]
    assert told[7]["forget"]["preview"]["dropped"][0]["text"] == "> Hello\n"
    # Nobody answers /forget 0 but the next line, which is no yes.
    assert told[8]["forget"] == {"done": False}
    assert "there is nothing to forget" in told[9]["error"]
    with Store("memories") as store:
        assert [entry.text for entry in store.entries("ann")] == ["> Hello\n"]


def test_without_a_memory(model: Path, chat: Chat) -> None:
    told = chat(["Hi", "/ledger", "/snapshot x", "/rollback x", "/forget 0"], model, *SHORT)
    assert [row["kind"] for row in told[2]["ledger"]] == ["told", "reply"]
    for command, document in zip(("snapshot", "rollback", "forget"), told[3:], strict=True):
        assert document["error"].startswith(f"/{command} needs a memory, and this conversation")


def test_mistakes_do_not_end_the_chat(model: Path, speak: Call, folder: Path) -> None:
    lines = b"/dance\n/status now\n/sleep x\n/sleep 0\nbad \xff\n/\nHi\n"
    out = speak(lines, "chat", model, *SHORT, "--json").splitlines()
    parts = [
        '"opened"',
        "unknown command /dance; /help lists",
        "use /status",
        "use a number, 1 or more",
        "use a number, 1 or more",
        "byte 4 is not UTF-8",
        "unknown command /;",
        '"turn"',
    ]
    assert [part in line for part, line in zip(parts, out, strict=True)] == [True] * 8


def test_for_people(model: Path, speak: Call, alone: Session) -> None:
    lines = "I am Ann.\n\n/sleep\n/ledger\n/nothing\n"
    memory = ("chat", model, "--memory", "ann", *SHORT)
    first = speak(lines, *memory)
    reply = alone.generate("I am Ann.", max_new_tokens=5)
    report = alone.sleeps[0]
    shown = "".join(sign if sign.isprintable() else "\ufffd" for sign in reply)
    slept = "[sleep 1 (window full): 12 tokens, 2 passes, "
    assert first.startswith(f"[new memory 'ann']\n{shown}\n{slept}")
    changes = f"{100 * min(report.changes):,.3g} to {100 * max(report.changes):,.3g} %"
    assert f"fast weights changed by {changes}]" in first
    assert "sleep 2 (asked): 6 tokens, 2 passes" in first
    assert "> I am Ann." in first
    again = speak("/status\n", *memory)
    assert again.startswith("[memory 'ann' restored: 18 tokens, 2 sleeps, 1 turn, last on 20")
    assert "memory 'ann': 18 tokens, 2 sleeps; window 0 of 12 tokens; state " in again


def test_many_sleeps_are_told_in_short(model: Path, speak: Call) -> None:
    out = speak("x" * 95 + "\n", "chat", model, *SHORT)
    assert "[7 sleeps: 84 tokens, " in out and "[sleep 8 (window full): 12 tokens" in out
    assert out.count("window full") == 1


def test_an_idle_sleep_that_was_rejected_waits_for_more(
    model: Path, call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "gate.toml").write_text(
        'held_out = ["The quick brown fox."]\nmax_median_rise = -99.0\n'
    )

    def speak() -> None:
        for line in (b"H\n", b"/status\n"):
            os.write(keys, line)
            time.sleep(1)
        os.close(keys)

    lines, keys = os.pipe()
    with os.fdopen(lines) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        speaker = threading.Thread(target=speak)
        speaker.start()
        options = ("--gate", "gate.toml", "--idle-seconds", 0.1, "--json")
        out = call("chat", model, *SHORT, *options)
        speaker.join()
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in events] == ["opened", "turn", "sleep", "status"]
    assert events[2]["sleep"]["verdict"]["outcome"] == "rejected"
    assert events[3]["status"]["window_fill"] == 10


def test_a_full_disk_does_not_end_the_chat(
    model: Path, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = 0

    def write(path: Path, content: bytes, *, private: bool) -> None:
        nonlocal writes
        writes += 1
        if writes == 2:
            raise OSError(28, "No space left on device", str(path))
        write_atomically(path, content, private=private)

    monkeypatch.setattr("slowwave.storage.memory_file.write_atomically", write)
    told = chat(["one", "two", "three"], model, "--memory", "ann", *SHORT)
    assert [document["event"] for document in told] == ["opened", "turn", "error", "turn"]
    assert "No space left on device: the turn is not recorded and" in told[2]["error"]
    with Store("memories") as store:
        texts = [entry.text for entry in store.entries("ann") if entry.kind == "told"]
    assert texts == ["> one\n", "> three\n"]


def test_a_reader_that_has_enough_ends_the_chat_quietly(model: Path) -> None:
    command = [sys.executable, "-m", "slowwave.cli", "chat", str(model), "--json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe, stderr=pipe) as chat:
        assert chat.stdin is not None and chat.stdout is not None and chat.stderr is not None
        assert '"opened"' in chat.stdout.readline()
        chat.stdout.close()
        chat.stdin.write("/status\n")
        chat.stdin.flush()
        assert chat.wait(60) == BROKEN_PIPE
        assert chat.stderr.read() == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "nowhere: no such folder; name the folder of a model to talk to"),
        (["MODEL", "--idle-seconds", "0"], "--idle-seconds is 0.0; use more than 0"),
        (["MODEL", "--top-p", "2"], "top_p is 2.0; use a probability in (0, 1]"),
        (["MODEL", "--memory", "x", "--memory-dir", "file/x"], "file/x"),
    ],
)
def test_refusals(
    arguments: list[str], sentence: str, model: Path, refusal: Call, folder: Path
) -> None:
    (folder / "file").write_text("")
    given = [str(model) if argument == "MODEL" else argument for argument in arguments]
    assert sentence in refusal("chat", *given)


def test_one_process_a_session_and_one_model(
    model: Path, refusal: Call, chat: Chat, tmp_path: Path
) -> None:
    chat(["Hi"], model, "--memory", "ann", *SHORT)
    talker = slowwave.load(model)
    with Store("memories") as store, store.open("ann", talker):
        sentence = refusal("chat", model, "--memory", "ann")
        assert "session 'ann' is open in process " in sentence and " since 2" in sentence
    with Store("memories") as store:
        other = talker._replace(sleep=SleepConfig(window=9, passes=2))
        store.open("bob", other, create=True).close()
    sentence = refusal("chat", model, "--memory", "bob")
    assert (
        "session 'bob' was read with another sleep (sleep.window is 12 here and 9 in the session)"
        in sentence
    )
    for path in (tmp_path / "memories" / "states").iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    assert "session 'ann' lost its state, but not its ledger: rebuild it" in refusal(
        "chat", model, "--memory", "ann"
    )


@pytest.mark.parametrize("word", ["exit", "quit", "Exit", "QUIT  ", "/exit", "/quit"])
def test_a_word_ends_the_chat(word: str, model: Path, speak: Call) -> None:
    speak(f"{word}\nnever said\n", "chat", model, "--memory", "ann", *SHORT)
    with Store("memories") as store:
        assert store.entries("ann") == []


def test_the_word_can_be_said(model: Path, speak: Call, chat: Chat) -> None:
    """With a space before it, or by a program, whose lines mean what they say."""
    speak(" exit\n", "chat", model, "--memory", "ann", *SHORT)
    told = chat(["quit", "/exit", "never said"], model, "--memory", "ann", *SHORT)
    assert [document["event"] for document in told] == ["opened", "turn"]
    with Store("memories") as store:
        texts = [entry.text for entry in store.entries("ann") if entry.kind == "told"]
    assert texts == ["> exit\n", "> quit\n"]


def test_slips_in_commands_of_the_chat(model: Path, chat: Chat) -> None:
    told = chat(["/leger", "/xyz"], model)
    errors = [document["error"] for document in told[1:]]
    assert errors[0].startswith(
        "unknown command /leger; did you mean /ledger? a space before the /"
    )
    assert errors[1].startswith("unknown command /xyz; /help lists those there are; a space before")
