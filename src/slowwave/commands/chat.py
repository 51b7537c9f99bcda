"""A conversation in a terminal, or one that a program leads line by line."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Annotated

import tyro

from slowwave.commands.arguments import parse
from slowwave.commands.chat_commands import ChatCommands
from slowwave.commands.chat_view import ChatView, JsonView, TextView
from slowwave.commands.line_input import LineInput, PipeInput, TerminalInput, find_history
from slowwave.commands.open_session import Opened, SessionOptions, open_session
from slowwave.commands.process import explain
from slowwave.commands.turn import take_turn
from slowwave.memory.ledger import USER

if TYPE_CHECKING:
    from slowwave.memory.sleep_report import SleepReport

LAST_WORDS = ("exit", "quit")
"""Lines that end a chat with a person; with a space before them they are said to the model."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatOptions(SessionOptions):
    """Talk with a model. It reads every turn once, sleeps when its window is full, and never reads
    it again; with --memory it goes on where it was when it is started the next time.

    A line that begins with / is a command; /help lists them. Lines may also come from a pipe.
    With --json each line is answered by one JSON document in a line: its `event` is turn, error, or
    the name of a command, under which the rest is. The first is opened; sleep tells of idle sleeps.
    """

    idle_seconds: Annotated[float | None, tyro.conf.arg(metavar="S")] = None
    """Sleep when nobody has said anything for so long."""
    history: bool = True
    """Keep what is typed, for the next chat's arrow keys, in $XDG_STATE_HOME/slowwave/chat-history
    (~/.local/state if that is not set)."""
    json: bool = False
    """Answer each line with one JSON document."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.idle_seconds is not None and not self.idle_seconds > 0:
            raise ValueError(f"--idle-seconds is {self.idle_seconds}; use more than 0")


def run(arguments: list[str]) -> None:
    """slowwave chat MODEL [--memory ann] [--idle-seconds 60] [--json]"""
    options = parse(ChatOptions, arguments, prog="slowwave chat")
    sleeps: list[SleepReport] = []
    view = JsonView() if options.json else TextView()

    def note(report: SleepReport) -> None:
        sleeps.append(report)
        view.slept(sleeps)

    with open_session(options, note) as opened:
        Chat(options, opened, view, sleeps).run()


class Chat:
    """The course of a chat, line after line.

    sleeps: what the session's on_sleep fills.
    """

    def __init__(
        self, options: ChatOptions, opened: Opened, view: ChatView, sleeps: list[SleepReport]
    ) -> None:
        self._options, self._session, self._view = options, opened.session, view
        self._lines, self._sleeps = _open_input(options), sleeps
        self._commands = ChatCommands(opened, view, lambda: self._lines.read("yes or no? "))
        self._idle_place = -1
        """Tokens that were read before the last idle sleep."""
        self._restored = opened.stored.restored if opened.stored else None

    def run(self) -> None:
        """Talks until the last line. An error is shown, and the chat goes on."""
        self._view.opened(self._restored)
        is_over = False
        while not is_over:
            try:
                is_over = self._step()
            except BrokenPipeError:
                raise
            except (ValueError, OSError) as error:
                self._view.error(explain(error))
            except KeyboardInterrupt:
                if isinstance(self._lines, PipeInput):
                    raise
                self._view.error("\n(Ctrl-D or exit ends the chat)")
            finally:
                self._sleeps.clear()

    def _step(self) -> bool:
        """One line; returns whether it was the last."""
        self._sleep_if_idle()
        line = self._lines.read(self._view.prompt)
        if line is None:
            return True
        if line.startswith("/"):
            return self._commands.run(line)
        if self._view.is_for_people and line.rstrip().lower() in LAST_WORDS:
            return True
        if line.strip() or not self._view.is_for_people:
            turn = take_turn(
                self._session,
                line,
                sleeps=self._sleeps,
                show=self._view.piece,
                max_new_tokens=self._options.max_new_tokens,
                source=USER,
            )
            self._view.turn(turn)
        return False

    def _sleep_if_idle(self) -> None:
        """Waits for a line if there is something to sleep on, and sleeps if none comes in time.

        Once, until more is said: what a gate rejected it would reject again.
        """
        status = self._session.status()
        was_tried = self._idle_place == status.tokens_seen
        seconds = self._options.idle_seconds
        if seconds is None or not status.window_fill or was_tried:
            return
        if not self._lines.wait(self._view.prompt, seconds):
            self._idle_place = status.tokens_seen
            report = self._session.sleep(trigger="idle")
            assert report is not None, "no reply is open"
            self._view.idle_sleep(report)


def _open_input(options: ChatOptions) -> LineInput:
    if options.json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return PipeInput(sys.stdin.fileno())
    return TerminalInput(find_history() if options.history else None)
