"""slowwave: sleep for language models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slowwave.generation.model_folder import load as load
    from slowwave.memory.session import Session as Session

_HOMES = {"Session": "slowwave.memory.session", "load": "slowwave.generation.model_folder"}


def __getattr__(name: str) -> Any:
    """Imports what it names when it is first asked for: torch takes a second."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
