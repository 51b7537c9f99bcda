"""One turn, from the command line or a program."""

from __future__ import annotations

import dataclasses
import functools
import sys
from pathlib import Path
from typing import Annotated

import tyro

from slowwave.commands.arguments import decode, parse, require_text
from slowwave.commands.open_session import SessionOptions, open_session
from slowwave.commands.printing import count, print_json, printable
from slowwave.commands.turn import ReadView, Turn, read_turn, take_turn
from slowwave.status_line import StatusLine


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
    """Only read the text, as it is, and say nothing. A long one is kept piece by piece: after an
    interruption the same command goes on from there."""
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
    with StatusLine() as status:
        view = ReadView(status, text)
        with open_session(options, view.note) as opened:
            if options.read:
                turn = read_turn(opened.session, text, source=source, view=view)
            else:
                turn = take_turn(
                    opened.session,
                    text,
                    sleeps=view.sleeps,
                    show=(lambda _: None) if options.json else functools.partial(_show, view),
                    max_new_tokens=options.max_new_tokens,
                    source=source,
                    stop=options.stop,
                )
    if options.json:
        told = {"memory": options.memory, "source": source, **vars(turn)}
        del told["prompt"]  # which may be long, and is known
        print_json(told)
    elif not options.read:
        print()
    elif not turn.interrupted:
        print(f"read {count(turn.new_tokens, 'token')}, slept {count(len(turn.sleeps), 'time')}")
    if turn.interrupted:
        raise KeyboardInterrupt(_describe_interruption(options, turn, view))


def _show(view: ReadView, piece: str) -> None:
    """A piece of the reply, on its own line."""
    view.reply()
    print(printable(piece) if sys.stdout.isatty() else piece, end="", flush=True)


def _describe_interruption(options: GenerateOptions, turn: Turn, view: ReadView) -> str:
    if options.memory is None:
        return "interrupted"
    if options.read:
        return f"interrupted; {view.describe()} are kept, and the same command goes on from there"
    return f"interrupted; {'the reply so far' if turn.new_tokens else 'nothing of it'} is kept"


def _take_text(options: GenerateOptions) -> str:
    given = [options.prompt is not None, options.file is not None, options.stdin]
    if sum(given) != 1:
        raise ValueError("give the prompt once: as an argument, by --file or by --stdin")
    if options.prompt is not None:
        return require_text(options.prompt, "PROMPT")
    if options.file is not None:
        return decode(options.file.read_bytes(), str(options.file))
    return decode(sys.stdin.buffer.read(), "standard input")
