"""Control tokens: what a model's tokens say that no text says."""

from __future__ import annotations

import dataclasses

from slowwave.config import Config, Many


@dataclasses.dataclass(frozen=True, kw_only=True)
class Controls(Config):
    """Control tokens, by id. No written text has one."""

    begin: Many[int] = ()
    """What every stream begins with."""
    stops: Many[int] = ()
    """End a reply; they are neither shown nor read."""
    others: Many[int] = ()
    """Are never drawn, so that no reply can begin a message of another role."""


NO_CONTROLS = Controls()
