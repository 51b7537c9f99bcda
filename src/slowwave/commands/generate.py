"""One turn, from the command line or a program."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from slowwave.commands.arguments import parse
from slowwave.commands.errors import INTERRUPTED
from slowwave.commands.open_session import SessionOptions, open_session
from slowwave.commands.printing import count, print_json, printable
from slowwave.commands.texts import decode, require_text
from slowwave.commands.turn import read_turn, take_turn

if TYPE_CHECKING:
    from slowwave.memory.sleep_report import SleepReport


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateOptions(SessionOptions):
    """Read a prompt and print the reply as it comes, or only read.

    With --memory the turn is kept, and the next one goes on from it.
    """

    prompt: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="PROMPT")] = None
    """What to say; or give it by --file or --stdin."""
    file: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Text file to take the prompt from."""
    stdin: bool = False
    """Take the prompt from standard input."""
    read: bool = False
    """Only read the text, as it is, and say nothing."""
    source: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Whom the text is from, by which it can be forgotten; user, or the name of --file."""
    stop: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TEXT ...")] = ()
    """Texts that end the reply, and are left out of it."""
    json: bool = False
    """Print one JSON document on stdout: the reply, tokens, sleeps, milliseconds."""


def run(arguments: list[str]) -> None:
    """slowwave generate MODEL PROMPT [--memory ann] [--file notes.txt --read] [--json]"""
    options = parse(GenerateOptions, arguments, prog="slowwave generate")
    if options.source is not None and not options.source.strip():
        raise ValueError(f"--source is {options.source!r}; use a name that says something")
    text = _take_text(options)
    source = options.source or (options.file.name if options.file else "user")
    progress = _Progress(is_shown=sys.stderr.isatty() and not options.json)
    with open_session(options, progress.note) as opened:
        if options.read:
            turn = read_turn(opened.session, text, sleeps=progress.sleeps, source=source)
        else:
            turn = take_turn(
                opened.session,
                text,
                sleeps=progress.sleeps,
                show=progress.pass_over if options.json else progress.show,
                max_new_tokens=options.max_new_tokens,
                source=source,
                stop=options.stop,
            )
    progress.end()
    if options.json:
        told = {field.name: getattr(turn, field.name) for field in dataclasses.fields(turn)}
        del told["prompt"]  # which may be long, and is known
        print_json({"memory": options.memory, "source": source, **told})
    elif options.read:
        print(f"read {count(turn.new_tokens, 'token')}, slept {count(len(turn.sleeps), 'time')}")
    else:
        print()
    if turn.interrupted:
        sys.exit(INTERRUPTED)


class _Progress:
    """What was slept, and a line about it on the terminal while a long text is read."""

    def __init__(self, *, is_shown: bool) -> None:
        self.sleeps: list[SleepReport] = []
        self._is_shown, self._is_open, self._shown = is_shown, False, 0.0

    def note(self, report: SleepReport) -> None:
        """Of a sleep."""
        self.sleeps.append(report)
        if self._is_shown and time.monotonic() - self._shown > 0.2:
            self._shown, self._is_open = time.monotonic(), True
            tokens = sum(report.tokens for report in self.sleeps)
            line = f"{count(tokens, 'token')} read, slept {count(len(self.sleeps), 'time')}"
            print(f"\r{line}", end="", file=sys.stderr, flush=True)

    def show(self, piece: str) -> None:
        """A piece of the reply, on its own line."""
        self.end()
        self._is_shown = False
        print(printable(piece) if sys.stdout.isatty() else piece, end="", flush=True)

    def pass_over(self, _piece: str) -> None:
        """A piece that is told with all others at the end."""

    def end(self) -> None:
        """Takes the line off the terminal."""
        if self._is_open:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        self._is_open = False


def _take_text(options: GenerateOptions) -> str:
    given = [options.prompt is not None, options.file is not None, options.stdin]
    if sum(given) != 1:
        raise ValueError("give the prompt once: as an argument, by --file or by --stdin")
    if options.prompt is not None:
        return require_text(options.prompt, "PROMPT")
    if options.file is not None:
        return decode(options.file.read_bytes(), str(options.file))
    return decode(sys.stdin.buffer.read(), "standard input")
