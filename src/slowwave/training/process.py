"""What a process that trains does beside its steps: it stops when asked, and keeps freed memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

SIGNALS = (signal.SIGINT, signal.SIGTERM)
OURS = (ValueError, OSError)
STDERR = 2
SAID = b"\nstops when this step is saved; Ctrl-C once more stops at once\n"

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


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


def keep_freed_memory() -> bool:
    """From now on this process keeps freed memory; says whether its allocator could be told so.

    By default glibc maps every large tensor anew from the system, which then zeroes it page by
    page: a third of a training step of the `rule110` recipe on a CPU (docs/log.md). Only glibc can
    be told otherwise. The process then holds its peak memory until it ends.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    allocator = ctypes.CDLL(None)
    never = -1
    told = allocator.mallopt(_M_MMAP_MAX, 0), allocator.mallopt(_M_TRIM_THRESHOLD, never)
    return all(told)
