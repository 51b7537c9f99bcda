"""What a server allows; torch-free."""

from __future__ import annotations

import dataclasses

from slowwave.config import Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeConfig(Config):
    """Limits of a server. Each that is met is answered with a status that says so."""

    workers: int = 2
    """Threads that run the model, one CPU core each."""
    max_queue: int = 256
    """Turns that are open or wait at the same time; the next is told to come back (429)."""
    max_open_sessions: int = 256
    """Memories that are kept open; beyond it, those that nobody used longest are closed."""
    max_body_bytes: int = 4 * 2**20
    """Size of a request (413)."""
    max_prompt_tokens: int = 262_144
    """Tokens that a request may give to read (400)."""
    max_tokens: int = 4096
    """Tokens that a reply may have (400)."""
    default_max_tokens: int = 256
    """Tokens that a reply has at most where the request does not say."""
    request_seconds: float = 600.0
    """Seconds that a request may take; what was said until then is kept (504)."""
    keep_alive_seconds: float = 5.0
    """A stream that has nothing to say sends a comment as often."""
    idle_seconds: float = 300.0
    """A memory that nobody used for so long sleeps when the server has nothing else to do; 0 is
    never."""
    shutdown_seconds: float = 30.0
    """What open requests have to end, once the server is told to stop."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), 0 if field.name == "idle_seconds" else 1
            if field.type == "float" and least:
                if not value > 0:
                    raise ValueError(f"limits.{field.name} is {value}; use more than 0 seconds")
            elif not value >= least:
                raise ValueError(f"limits.{field.name} is {value}; use {least} or more")
        if self.default_max_tokens > self.max_tokens:
            raise ValueError(
                f"limits.default_max_tokens is {self.default_max_tokens} with limits.max_tokens "
                f"{self.max_tokens}; use at most as many"
            )
