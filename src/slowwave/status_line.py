"""One line about work that takes long: live on a terminal, now and then in a log; torch-free."""

from __future__ import annotations

import os
import sys
import time
from typing import Self

LIVE_SECONDS = 0.2
"""Between two changes of the live line."""
FIRST_SECONDS = 5.0
"""Before the first plain line of a log; each next one takes twice as long, up to MOST_SECONDS."""
MOST_SECONDS = 60.0


class StatusLine:
    """Tells on stderr how work goes on: a terminal shows one line that changes, a file or a pipe
    gets a plain line after some seconds and then ever more seldom, at last once a minute. At the
    end of a `with` it takes the live line off."""

    def __init__(self, *, patience: float = 0.0) -> None:
        """patience: seconds before a terminal shows anything."""
        # A dumb terminal cannot take a line back.
        self._is_live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._is_open = False
        self._shown = time.monotonic()
        self._pause = patience if self._is_live else FIRST_SECONDS
        self._work, self._began, self._first = "", 0.0, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def show(self, line: str) -> None:
        """Replaces the line, unless that was done a moment ago."""
        if time.monotonic() - self._shown >= self._pause:
            self._print(line)

    def count(self, work: str, done: int, total: int, unit: str, *, beside: str = "") -> None:
        """Shows how much of some work is done, what else there is to say of it, and how long the
        rest will take."""
        if work != self._work:
            self._work, self._began, self._first = work, time.monotonic(), done
        line = f"{work}: {done:,} of {total:,} {unit}{beside and f', {beside}'}"
        passed, gained = time.monotonic() - self._began, done - self._first
        if passed > 1 and gained > 0:
            line += f", {show_seconds(passed * (total - done) / gained)} left"
        self.show(line)

    def count_read(self, done: int, total: int) -> None:
        """As `count`, of a ledger that is gone through again."""
        self.count("reading again", done, total, "tokens")

    def say(self, line: str) -> None:
        """A line that stays."""
        self.clear()
        print(line, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Takes the live line off the terminal."""
        if self._is_open:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        self._is_open = False

    def _print(self, line: str) -> None:
        self._shown = time.monotonic()
        if self._is_live:
            self._pause, self._is_open = LIVE_SECONDS, True
            print(f"\r{line[: _width() - 1]}\x1b[K", end="", file=sys.stderr, flush=True)
        else:
            self._pause = min(MOST_SECONDS, 2 * self._pause)
            print(line, file=sys.stderr, flush=True)


def show_seconds(seconds: float) -> str:
    """A time to wait: "7s", "3m05s", "2h05m"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60}h{minutes % 60:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def _width() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return 80
