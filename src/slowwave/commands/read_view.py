"""How far the reading of a text is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slowwave.commands.printing import count
from slowwave.status_line import StatusLine

if TYPE_CHECKING:
    from slowwave.memory.sleep_report import SleepReport


class ReadView:
    """Shows on a status line how much of a text is read, until a reply begins.

    sleeps: those since it was made.
    """

    def __init__(self, status: StatusLine, text: str) -> None:
        self.sleeps: list[SleepReport] = []
        self._status, self._done, self._total = status, 0, len(text)
        self._is_over = False

    def note(self, report: SleepReport) -> None:
        """A sleep, within what is read in one go."""
        self.sleeps.append(report)
        self._show()

    def skip(self, characters: int) -> None:
        """These were read before."""
        self._done = characters
        self._status.say(f"{self.describe()} were read before; goes on from there")

    def read(self, characters: int) -> None:
        """These are read, and kept."""
        self._done += characters
        self._show()

    def reply(self) -> None:
        """A reply begins, or goes on."""
        self._is_over = True
        self._status.clear()

    def describe(self) -> str:
        """What is read."""
        return f"{self._done:,} of {self._total:,} characters"

    def _show(self) -> None:
        if self._is_over:
            return
        slept = f"slept {count(len(self.sleeps), 'time')}"
        if self._done:
            self._status.count("reading", self._done, self._total, "characters", beside=slept)
        else:
            tokens = count(sum(report.tokens for report in self.sleeps), "token")
            self._status.show(f"reading: {tokens}, {slept}")
