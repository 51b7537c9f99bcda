"""The command line: a table of commands, and what becomes of their errors.

Each command is a file in `commands`, imported when it is called; torch only when work begins.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from slowwave.commands.errors import BROKEN_PIPE, INTERRUPTED, USER_ERROR, explain

# What a command does, and how it is called.
COMMANDS = {
    "chat": ("talk with a model that remembers:", "slowwave chat MODEL --memory ann"),
    "generate": ("one reply, or only read:", 'slowwave generate MODEL "Where is Ann?"'),
    "memory": ("look into, undo, forget, move memories:", "slowwave memory list"),
    "serve": ("memories for OpenAI's clients:", "slowwave serve MODEL --memory-dir memories"),
    "demo": ("watch trained models read, sleep, forget the cache, and still answer", ""),
    "train": ("train by a recipe, or continue a run:", "slowwave train recipes/depo-mini.toml"),
    "eval": ("score a run on unseen examples:", "slowwave eval RUN --passes 1 2 4"),
    "export": ("make a model to talk to from a run:", "slowwave export RUN OUT"),
    "probe": ("find what each pass left in fast weights:", "slowwave probe RUN"),
    "reproduce": ("make a figure, or list them:", "slowwave reproduce fig3 --jobs 2"),
    "plot": ("draw figures from runs on disk:", "slowwave plot results/depo-mini"),
    "tasks": ("list the tasks, or show examples:", "slowwave tasks depo --show 3"),
    "bench": ("measure speed and memory beside peers:", "slowwave bench op"),
    "doctor": ("what this machine offers slowwave", ""),
}

DESCRIPTION = """slowwave: language models that sleep.

A model fills its attention window, sleeps (N passes over the window, each writing into its fast
weights), drops the key-value cache and goes on.

commands:
{}

slowwave COMMAND --help explains each of them."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point; a user's mistake is one line on stderr and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(describe())
        return
    name, *rest = arguments
    try:
        if name not in COMMANDS:
            raise ValueError(f"unknown command {name!r}; use one of {', '.join(COMMANDS)}")
        import_module(f"slowwave.commands.{name}").run(rest)
    except BrokenPipeError:
        # Whoever read our output has enough; Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
    except (ValueError, OSError) as error:
        print(f"slowwave: {explain(error)}", file=sys.stderr)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt as interrupt:
        start = "\n" if sys.stderr.isatty() else ""  # the terminal may show ^C
        print(f"{start}slowwave: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        sys.exit(INTERRUPTED)


def describe() -> str:
    """What `slowwave --help` prints."""
    lines = (f"  {name:<10}{does:<42} {call}".rstrip() for name, (does, call) in COMMANDS.items())
    return DESCRIPTION.format("\n".join(lines))


if __name__ == "__main__":
    main()
