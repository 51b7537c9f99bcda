"""A conversation in a terminal, or one that a program leads line by line."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Annotated

import tyro

from slowwave.commands.arguments import parse
from slowwave.commands.line_input import LineInput, PipeInput, TerminalInput, find_history
from slowwave.commands.open_session import SessionOptions, open_session

if TYPE_CHECKING:
    from slowwave.memory.sleep_report import SleepReport


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
    from slowwave.commands.chat_loop import Chat
    from slowwave.commands.chat_view import JsonView, TextView

    sleeps: list[SleepReport] = []
    view = JsonView() if options.json else TextView()

    def note(report: SleepReport) -> None:
        sleeps.append(report)
        view.slept(sleeps)

    with open_session(options, note) as opened:
        chat = Chat(
            opened,
            _open_input(options),
            view,
            sleeps,
            max_new_tokens=options.max_new_tokens,
            idle_seconds=options.idle_seconds,
        )
        chat.run()


def _open_input(options: ChatOptions) -> LineInput:
    if options.json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return PipeInput(sys.stdin.fileno())
    return TerminalInput(find_history() if options.history else None)
