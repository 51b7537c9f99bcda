"""The terminal as all commands print to it; a name means what it says there, whatever it holds."""

from __future__ import annotations

from typing import Any

from rich.console import Console


class PlainConsole(Console):
    """A console that takes texts as they are.

    Brackets are no markup and :words: no emoji, unless it is asked for, and BrokenPipeError gets
    through to the command line, which ends as every program does whose reader has left.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "highlight": False, "emoji": False, **options})

    def on_broken_pipe(self) -> None:
        """Called by rich, which would exit with 1."""
        raise BrokenPipeError
