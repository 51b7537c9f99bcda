"""One turn: a prompt, the reply as it comes, and what it took. Ctrl-C ends the reply alone."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Callable, Generator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, cast

from slowwave.commands.printing import count
from slowwave.status_line import StatusLine

if TYPE_CHECKING:
    from slowwave.memory.session import Session
    from slowwave.memory.sleep_report import SleepReport


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn:
    """What was said, and where the session stands after it."""

    prompt: str
    reply: str
    interrupted: bool
    """Ctrl-C ended the reply; what was said until then is kept."""
    new_tokens: int
    """Tokens of prompt and reply that were read; 0 if nothing of the turn is kept."""
    tokens_seen: int
    """Tokens that the session has read, this turn included."""
    window_fill: int
    """Tokens that it has not slept on."""
    num_sleeps: int
    milliseconds: float
    sleeps: list[SleepReport]
    """The sleeps of this turn."""


class Interrupts:
    """Within, Ctrl-C stops the reading of a prompt at once, but lets a reply end its token first.

    A second Ctrl-C never waits, unless the turn is being kept already, which nothing stops.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._waits = self._is_keeping = False

    def start_reply(self) -> None:
        """From now on the first Ctrl-C only sets `is_asked`."""
        self._waits = True

    def start_keeping(self) -> None:
        """From now on nothing is interrupted."""
        self._is_keeping = True

    def __enter__(self) -> Interrupts:
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        is_second, self.is_asked = self.is_asked, True
        if (is_second or not self._waits) and not self._is_keeping:
            raise KeyboardInterrupt


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


def take_turn(
    session: Session,
    prompt: str,
    *,
    sleeps: list[SleepReport],
    show: Callable[[str], object],
    max_new_tokens: int,
    source: str,
    stop: Sequence[str] = (),
) -> Turn:
    """Says `prompt` and shows the reply in pieces.

    sleeps: what the session's on_sleep fills; those of the turn are taken out of it.
    """
    before, began = session.status().tokens_seen, time.perf_counter()
    pieces: list[str] = []
    with Interrupts() as interrupts:
        reply = session.stream(prompt, source=source, max_new_tokens=max_new_tokens, stop=stop)
        try:
            for piece in reply:
                interrupts.start_reply()
                pieces.append(piece)
                show(piece)
                if interrupts.is_asked:
                    break
        except KeyboardInterrupt:
            pass
        finally:
            interrupts.start_keeping()
            cast(Generator[str], reply).close()
    return _finish(
        session, before, began, prompt, "".join(pieces), sleeps, interrupted=interrupts.is_asked
    )


def read_turn(session: Session, text: str, *, source: str, view: ReadView) -> Turn:
    """Reads `text` as it is, in pieces that are turns of their own.

    Interrupted, it keeps the pieces that were read. In a session of a store, where what it was told
    last from `source` is the beginning of the text, it goes on from there.
    """
    from slowwave.memory.turn import count_known, cut_text

    before, began = session.status().tokens_seen, time.perf_counter()
    pieces, interrupted = cut_text(text), False
    known = count_known(pieces, _list_told(session, source))
    if known:
        view.skip(sum(map(len, pieces[:known])))
    try:
        for piece in pieces[known:]:
            session.read(piece, source=source)
            view.read(len(piece))
    except KeyboardInterrupt:
        interrupted = True
    return _finish(session, before, began, text, "", view.sleeps, interrupted=interrupted)


def _list_told(session: Session, source: str) -> list[str]:
    """What a session of a store was told from a source."""
    from slowwave.memory.stored_session import StoredSession

    ledger = session.ledger() if isinstance(session, StoredSession) else []
    return [entry.given for entry in ledger if entry.kind == "told" and entry.source == source]


def _finish(
    session: Session,
    before: int,
    began: float,
    prompt: str,
    reply: str,
    sleeps: list[SleepReport],
    *,
    interrupted: bool,
) -> Turn:
    mine = [*sleeps]
    sleeps.clear()
    status = session.status()
    return Turn(
        prompt=prompt,
        reply=reply,
        interrupted=interrupted,
        new_tokens=status.tokens_seen - before,
        tokens_seen=status.tokens_seen,
        window_fill=status.window_fill,
        num_sleeps=status.num_sleeps,
        milliseconds=1000 * (time.perf_counter() - began),
        sleeps=mine,
    )
