"""slowwave: sleep for language models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slowwave.memory.session import Session as Session
    from slowwave.memory.sleep_report import SleepReport as SleepReport
    from slowwave.memory.store import Store as Store
    from slowwave.memory.stored_session import StoredSession as StoredSession
    from slowwave.memory.talker import Talker as Talker
    from slowwave.memory.talker import load as load
    from slowwave.runtime.config import Sampling as Sampling

    __version__: str

__all__ = [
    "Sampling",
    "Session",
    "SleepReport",
    "Store",
    "StoredSession",
    "Talker",
    "__version__",
    "load",
]

_HOMES = {
    "Sampling": "slowwave.runtime.config",
    "Session": "slowwave.memory.session",
    "SleepReport": "slowwave.memory.sleep_report",
    "Store": "slowwave.memory.store",
    "StoredSession": "slowwave.memory.stored_session",
    "Talker": "slowwave.memory.talker",
    "load": "slowwave.memory.talker",
}


def __getattr__(name: str) -> Any:
    """Imports what it names when it is first asked for: torch takes a second."""
    if name == "__version__":
        return import_module("importlib.metadata").version("slowwave")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
