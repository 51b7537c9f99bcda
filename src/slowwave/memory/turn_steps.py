"""A turn in steps, for whoever takes several at a time."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Literal, NamedTuple, TypeVar

Result = TypeVar("Result")


class Progress(NamedTuple):
    """A step that was done, and what the next one will do."""

    next: Literal["read", "sleep", "draw", "record"]
    """Read up to a window, sleep one pass, draw and read a token, or end the turn: that is the last
    step, and waits for the disk where the session is kept on one."""
    text: str = ""
    """What the step added to the reply."""
    num_drawn: int = 0
    """Tokens that the step added to the reply."""
    finish: Literal["stop", "length"] | None = None
    """With the last text: why the reply ends."""


Steps = Generator[Progress, None, Result]
"""Work that is done while somebody asks for its next step; closing it ends it where it is."""


def finish(steps: Steps[Result]) -> Result:
    """Takes all steps at once."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value


def time_steps(steps: Steps[Result]) -> Steps[tuple[Result, float]]:
    """The same steps, and the seconds that they took, without those between them."""
    seconds = 0.0
    while True:
        began = time.perf_counter()
        try:
            progress = next(steps)
        except StopIteration as done:
            return done.value, seconds + time.perf_counter() - began
        seconds += time.perf_counter() - began
        yield progress
