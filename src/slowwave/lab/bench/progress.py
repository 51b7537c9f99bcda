"""How far a benchmark is, told by a logger, so that no measurement has to hand it on."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from slowwave.status_line import StatusLine

LOG = logging.getLogger("slowwave.lab.bench")
LOG.setLevel(logging.WARNING)


class _StatusHandler(logging.Handler):
    def __init__(self, status: StatusLine, name: str) -> None:
        super().__init__()
        self._status, self._name = status, name

    def emit(self, record: logging.LogRecord) -> None:
        self._status.show(f"bench {self._name}: {record.getMessage()}")


@contextlib.contextmanager
def shown_on(status: StatusLine, name: str) -> Iterator[None]:
    """Shows what is told within, as that of benchmark `name`."""
    handler = _StatusHandler(status, name)
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOG.setLevel(logging.WARNING)
        LOG.removeHandler(handler)
