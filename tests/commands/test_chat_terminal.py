"""A chat as people have it: in a terminal, with keys, interrupts, kills and restarts."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import slowwave
from slowwave.memory.replay import replay
from slowwave.memory.session import Session
from slowwave.memory.store import Store

# Makes the terminal that it is given the controlling one, and lets Ctrl-C through, which tests that
# were started in the background ignore: a shell does both.
START = (
    "import os, signal, sys; os.close(os.open(os.ttyname(0), os.O_RDWR)); "
    "signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execv(sys.executable, [sys.executable, '-m', 'slowwave.cli', *sys.argv[1:]])"
)
SECONDS = 60
ENDLESS = ("--max-new-tokens", "100000")
Call = Callable[..., str]
Start = Callable[..., "Terminal"]


class Terminal:
    """A process in a terminal of its own."""

    def __init__(self, arguments: list[str]) -> None:
        self._keys, terminal = pty.openpty()
        environment = os.environ | {"TERM": "xterm", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, *arguments],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
            env=environment,
        )
        os.close(terminal)
        self._shown = ""

    def press(self, keys: str) -> None:
        os.write(self._keys, keys.encode())

    def say(self, line: str) -> None:
        self.press(line + "\r")

    def interrupt(self, pattern: str) -> str:
        """Presses Ctrl-C at the prompt until something is shown.

        It throws away what was typed and not read. If that is a key which readline was told of, it
        waits for another one and hears no Ctrl-C before.
        """
        for _ in range(SECONDS // 2):
            self.press("\x03")
            with contextlib.suppress(AssertionError):
                return self.expect(pattern, seconds=2)
            self.press("a")
            time.sleep(0.5)
        raise AssertionError(f"{pattern!r} is not in {self._shown!r}")

    def expect(self, pattern: str, seconds: float = SECONDS) -> str:
        """Waits until something is shown; returns all that was shown up to its end."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self._shown, re.DOTALL)):
            if not select.select([self._keys], [], [], max(0, end - time.monotonic()))[0]:
                raise AssertionError(f"{pattern!r} is not in {self._shown!r}")
            try:
                self._shown += os.read(self._keys, 1 << 16).decode(errors="replace")
            except OSError:  # Linux says so when the process has ended
                raise AssertionError(f"{pattern!r} is not in {self._shown!r}") from None
        shown, self._shown = self._shown[: found.end()], self._shown[found.end() :]
        return shown

    def wait(self) -> int:
        return self.process.wait(SECONDS)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._keys)


@pytest.fixture
def start(model: Path) -> Iterator[Start]:
    opened: list[Terminal] = []

    def open_chat(*options: str) -> Terminal:
        opened.append(Terminal(["chat", str(model), *options]))
        return opened[-1]

    yield open_chat
    for terminal in opened:
        terminal.close()


def begin(model: Path) -> Session:
    """A session in memory."""
    talker = slowwave.load(model)
    return talker.session()


def ledger(model: Path) -> list[tuple[str, str]]:
    """Kinds and texts of ann's ledger, which must lead to her state."""
    talker = slowwave.load(model)
    with Store("memories") as store, store.open("ann", talker) as session:
        replayed = replay(lambda: begin(model), session.ledger())
        assert replayed.state.counters.tokens_seen == session.state.counters.tokens_seen
        assert replayed.state.window_tokens.tolist() == session.state.window_tokens.tolist()
        return [(entry.kind, entry.text) for entry in session.ledger()]


def test_a_conversation_over_a_restart(
    model: Path, start: Start, folder: Path, refusal: Call
) -> None:
    short = ("--memory", "ann", "--max-new-tokens", "6")
    first = start(*short)
    first.expect(r"\[new memory 'ann'\].*exit or Ctrl-D the chat\..*> ")
    first.say("I am Ann.")
    first.expect(r"\[sleep 1 \(window full\): 12 tokens, 2 passes, [\d,]+ ms, fast weights .*> ")
    sentence = refusal("chat", model, "--memory", "ann")
    assert f"session 'ann' is open in process {first.process.pid} on " in sentence
    first.press("\x04")
    assert first.wait() == 0
    history = folder / "state" / "slowwave" / "chat-history"
    assert history.read_text() == "I am Ann.\n"
    assert history.parent.stat().st_mode & 0o777 == 0o700
    assert history.stat().st_mode & 0o777 == 0o600
    history.chmod(0o644)
    second = start(*short)
    second.expect(r"memory 'ann' restored: 19 tokens, 1 sleep, 1 turn, last on 20.*> ")
    second.press("\x1b[A")  # what was typed in the last chat
    second.expect("I am Ann.")
    second.press("\x7f?\x01So, \r")  # mended: its end, then its beginning
    second.expect(r"\[sleep 2 .*> ")
    second.say("/quit")
    assert second.wait() == 0
    assert history.stat().st_mode & 0o777 == 0o600
    alone = begin(model)
    for prompt in ("I am Ann.", "So, I am Ann?"):
        alone.generate(prompt, max_new_tokens=6)
    assert [(entry.kind, entry.text) for entry in alone.entries] == ledger(model)


def test_ctrl_c_ends_a_reply_and_a_kill_nothing_that_was_said(model: Path, start: Start) -> None:
    chat = start("--memory", "ann", *ENDLESS)
    chat.expect("> ")
    for prompt in ("Hello", "Once more"):
        chat.say(prompt)
        chat.expect(prompt + "\r\n.{20}")
        chat.press("\x03")
        chat.expect(r"\[interrupted\].*> ")
        chat.press("half a line")
        chat.interrupt(r"Ctrl-D or exit ends the chat.*> ")
    chat.say("Last")
    chat.expect("Last\r\n.{20}")
    chat.process.send_signal(signal.SIGKILL)
    chat.wait()
    told = ledger(model)
    assert [kind for kind, _ in told] == ["told", "reply"] * 2
    assert [text for kind, text in told if kind == "told"] == ["> Hello\n", "> Once more\n"]
    assert all(len(text) > 20 and text.endswith("\n") for kind, text in told if kind == "reply")


def test_it_sleeps_when_nobody_says_anything(model: Path, start: Start, folder: Path) -> None:
    chat = start("--no-history", "--max-new-tokens", "5", "--idle-seconds", "0.5")
    chat.expect("> ")
    chat.say("Hello")
    chat.expect(r"\[sleep \d+ \(idle\): .*> ")
    time.sleep(1)  # with nothing to sleep on
    chat.press("/sta")  # whoever types is not idle
    time.sleep(1)
    chat.press("tus\r")
    shown = chat.expect(r"window 0 of 12.*> ")
    assert "idle" not in shown
    chat.say("Hello")
    chat.expect("Hello\r\n.*\r\n.*> ")
    chat.interrupt(r"Ctrl-D or exit ends the chat.*> ")  # perhaps while it waits for a key
    chat.say("exit")
    assert chat.wait() == 0
    assert list(folder.iterdir()) == []


def test_a_terminal_that_has_ascii_alone(
    model: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is typed is read all the same, and shown as far as that can be."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    chat = start("--memory", "ann", "--max-new-tokens", "5")
    chat.expect("> ")
    chat.say("Zürich ☕")
    chat.say("/ledger")
    chat.expect(r"> Z\?rich \?\? .*> ")
    chat.say("quit")
    assert chat.wait() == 0
    assert ledger(model)[0] == ("told", "> Zürich ☕\n")
