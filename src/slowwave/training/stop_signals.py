"""Ctrl-C in a training run: the step that is being taken ends, and is saved."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
OURS = (ValueError, OSError)
STDERR = 2
SAID = b"\nstops when this step is saved; Ctrl-C once more stops at once\n"


class StopSignals:
    """Within, the first Ctrl-C (or terminate signal) only sets `is_asked`; a second Ctrl-C raises
    KeyboardInterrupt, and so does the first while `may_wait` says no, or what fails after it.

    Outside the main thread, which alone hears signals, it does nothing.
    """

    def __init__(self, may_wait: Callable[[], bool]) -> None:
        self.is_asked = False
        self._may_wait = may_wait
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        # A terminal sends Ctrl-C to the compiler too that a step may have started: its failure is
        # then none. Ours are of these kinds, and told.
        if self.is_asked and isinstance(error, Exception) and not isinstance(error, OURS):
            raise KeyboardInterrupt from error

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del frame
        is_second, self.is_asked = self.is_asked, True
        if not self._may_wait() or (is_second and number == signal.SIGINT):
            raise KeyboardInterrupt
        if not is_second:
            with contextlib.suppress(OSError):
                os.write(STDERR, SAID)  # a print might be what was interrupted
