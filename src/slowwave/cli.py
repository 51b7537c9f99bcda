"""The command line: a table of commands; their errors become a sentence and an exit code.

A command is a function in a file of `commands`, imported when it is called; torch only when work
begins.
"""

from __future__ import annotations

import contextlib
import sys
from importlib.metadata import version
from pkgutil import resolve_name

from slowwave.commands.process import (
    BROKEN_PIPE,
    INTERRUPTED,
    USER_ERROR,
    explain,
    explain_missing,
    flush_or_close,
    prepare_streams,
)
from slowwave.wording import describe_unknown

# The file and function in `commands` that run a command, what it does, and arguments to try.
COMMANDS = {
    "chat": ("chat:run", "talk with a model that remembers:", "MODEL --memory ann"),
    "generate": ("generate:run", "one reply, or only read:", 'MODEL "Where is Ann?"'),
    "memory": ("memory:run", "look into, undo, forget, move memories:", "list"),
    "serve": ("serve:run", "memories for OpenAI's clients:", "MODEL --memory-dir memories"),
    "demo": (
        "lab:demo",
        "watch trained models read, sleep, forget the cache, and still answer",
        "",
    ),
    "train": ("runs:train", "train by a recipe, or continue a run:", "recipes/depo-mini.toml"),
    "eval": ("runs:evaluate", "score a run on unseen examples:", "RUN --passes 1 2 4"),
    "export": ("runs:export", "make a model to talk to from a run:", "RUN OUT"),
    "adapt": ("adapt:run", "train an adapter of a pretrained model:", "RECIPE MODEL OUT"),
    "convert": ("convert:run", "make a folder of ours from a pretrained model:", "MODEL OUT"),
    "probe": ("lab:probe", "find what each pass left in fast weights:", "RUN"),
    "reproduce": ("lab:reproduce", "make a figure, or list them:", "fig3 --jobs 2"),
    "plot": ("lab:plot", "draw figures from runs on disk:", "results/depo-mini"),
    "tasks": ("tasks:run", "list the tasks, or show examples:", "depo --show 3"),
    "bench": ("lab:bench", "measure speed and memory beside peers:", "op"),
    "doctor": ("doctor:run", "what this machine offers slowwave", ""),
}

DESCRIPTION = """slowwave: language models that sleep.

A model fills its attention window, sleeps (N passes over the window, each writing into its fast
weights), drops the key-value cache and goes on.

commands:
{}

slowwave COMMAND --help explains each of them; slowwave --version says which slowwave this is."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point; a user's mistake is one line on stderr and exit code 2."""
    prepare_streams()
    try:
        try:
            _run(sys.argv[1:] if arguments is None else arguments)
        finally:
            flush_or_close()
    except BrokenPipeError:
        sys.exit(BROKEN_PIPE)
    except OSError as error:  # of the last lines, which a full disk did not take
        before = error.__context__
        if not (isinstance(before, SystemExit) and before.code):  # else it was told already
            _tell(explain(error))
        sys.exit(USER_ERROR)


def describe() -> str:
    """The text of `slowwave --help`."""
    lines: list[str] = []
    for name, (_, about, words) in COMMANDS.items():
        example = f"slowwave {name} {words}" if words else ""
        lines.append(f"  {name:<10}{about:<42} {example}".rstrip())
    return DESCRIPTION.format("\n".join(lines))


def _run(arguments: list[str]) -> None:
    try:
        _call(arguments)
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        _tell(explain(error))
        sys.exit(USER_ERROR)
    except ModuleNotFoundError as error:
        sentence = explain_missing(error.name or "")
        if sentence is None:
            raise
        _tell(sentence)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt as interrupt:
        start = "\n" if sys.stderr.isatty() else ""  # the terminal may show ^C
        _tell(str(interrupt) or "interrupted", start)
        sys.exit(INTERRUPTED)


def _call(arguments: list[str]) -> None:
    name, *rest = arguments or ["--help"]
    if name in ("--version", "-V", "version"):
        print(f"slowwave {version('slowwave')}")
        return
    if name in ("--help", "-h") or (name == "help" and not rest):
        print(describe())
        return
    if name == "help":  # git's and cargo's way to ask
        name, rest = rest[0], [*rest[1:], "--help"]
    if name not in COMMANDS:
        from slowwave.commands import memory

        if name in memory.COMMANDS:
            raise ValueError(f"unknown command {name!r}; did you mean memory {name}?")
        raise ValueError(describe_unknown("command", name, COMMANDS))
    resolve_name(f"slowwave.commands.{COMMANDS[name][0]}")(rest)


def _tell(sentence: str, start: str = "") -> None:
    with contextlib.suppress(OSError):
        print(f"{start}slowwave: {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
