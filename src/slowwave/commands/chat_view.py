"""The output of a chat: lines for people, or one JSON document for each line of a program."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from slowwave.commands.open_session import Restored
from slowwave.commands.printing import (
    count,
    describe_sleep,
    print_json,
    print_parts,
    printable,
    show_time,
)
from slowwave.status_line import StatusLine

if TYPE_CHECKING:
    from rich.console import RenderableType

    from slowwave.commands.turn import Turn
    from slowwave.memory.sleep_report import SleepReport

FEW_SLEEPS = 3
PATIENCE = 1.0
"""Seconds of reading before a terminal shows how far it is."""


class ChatView:
    """Shows the course of a chat. What a view does not override is not shown."""

    prompt: str
    """Shown before a line is typed."""
    is_for_people: bool

    def opened(self, restored: Restored | None) -> None:
        """The session is there; None if it ends with the process."""

    def slept(self, sleeps: Sequence[SleepReport]) -> None:
        """The sleeps of the turn so far; there may be many in a long text."""

    def read_again(self, done: int, total: int) -> None:
        """So many tokens of a ledger were gone through again."""

    def piece(self, text: str) -> None:
        """More of a reply."""

    def turn(self, turn: Turn) -> None:
        """A turn is over."""

    def idle_sleep(self, report: SleepReport) -> None:
        """The session slept since no line came for a while."""

    def answer(self, command: str, document: Any, *shown: RenderableType) -> None:
        """The result of a command of the chat: for programs, and for people."""

    def error(self, sentence: str) -> None:
        """A line could not be carried out."""


class TextView(ChatView):
    """For people. Replies stand out from what is said about them where a terminal can show that."""

    prompt = "> "
    is_for_people = True

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._has_reply = False
        self._status = StatusLine(patience=PATIENCE)

    def opened(self, restored: Restored | None) -> None:
        self._note(_greet(restored))
        if self._is_terminal:
            self._note("/help lists commands, Ctrl-C ends a reply, exit or Ctrl-D the chat.")

    def slept(self, sleeps: Sequence[SleepReport]) -> None:
        if len(sleeps) == 1:
            self._status = StatusLine(patience=PATIENCE)
        if not self._has_reply:
            tokens = count(sum(report.tokens for report in sleeps), "token")
            self._status.show(f"reading: {tokens}, slept {count(len(sleeps), 'time')}")

    def read_again(self, done: int, total: int) -> None:
        self._status.count_read(done, total)

    def piece(self, text: str) -> None:
        self._status.clear()
        self._has_reply = True
        print(printable(text), end="", flush=True)

    def turn(self, turn: Turn) -> None:
        self._status.clear()
        if self._has_reply or turn.new_tokens:
            print()
        self._has_reply = False
        if turn.interrupted:
            self._note("interrupted" if turn.new_tokens else "interrupted; nothing of it is kept")
        for line in _describe_sleeps(turn.sleeps):
            self._note(line)

    def idle_sleep(self, report: SleepReport) -> None:
        self._note(describe_sleep(report))

    def answer(self, command: str, document: Any, *shown: RenderableType) -> None:
        self._status.clear()
        print_parts(*shown)

    def error(self, sentence: str) -> None:
        self._status.clear()
        if self._has_reply:
            print()
        self._has_reply = False
        print(printable(sentence), file=sys.stderr, flush=True)

    def _note(self, line: str) -> None:
        line = f"[{printable(line)}]"
        if self._is_terminal and not os.environ.get("NO_COLOR"):
            line = f"\x1b[2m{line}\x1b[0m"
        print(line, flush=True)


class JsonView(ChatView):
    """For programs: a document when the session is there, then one for each line, and one for each
    idle sleep. `event` says which it is. The sleeps and the text of a turn come at its end."""

    prompt = ""
    is_for_people = False

    def opened(self, restored: Restored | None) -> None:
        print_json({"event": "opened", "restored": restored})

    def turn(self, turn: Turn) -> None:
        print_json({"event": "turn", "turn": turn})

    def idle_sleep(self, report: SleepReport) -> None:
        print_json({"event": "sleep", "sleep": report})

    def answer(self, command: str, document: Any, *shown: RenderableType) -> None:
        print_json({"event": command, command: document})

    def error(self, sentence: str) -> None:
        print_json({"event": "error", "error": sentence})


def _greet(restored: Restored | None) -> str:
    if restored is None:
        return "a conversation without memory; --memory NAME keeps one"
    if restored.is_new:
        others = f"; there are {', '.join(restored.others)}" if restored.others else ""
        return f"new memory {restored.memory!r}{others}"
    return (
        f"memory {restored.memory!r} restored: {count(restored.tokens_seen, 'token')}, "
        f"{count(restored.num_sleeps, 'sleep')}, {count(restored.turns, 'turn')}, "
        f"last on {show_time(restored.changed)}"
    )


def _describe_sleeps(sleeps: Sequence[SleepReport]) -> list[str]:
    """A line each; of many the last, and how many there were before it."""
    lines = [describe_sleep(report) for report in sleeps]
    if len(lines) > FEW_SLEEPS:
        before = sleeps[:-1]
        tokens = count(sum(report.tokens for report in before), "token")
        milliseconds = sum(report.milliseconds for report in before)
        return [f"{len(before):,} sleeps: {tokens}, {milliseconds:,.0f} ms", lines[-1]]
    return lines
