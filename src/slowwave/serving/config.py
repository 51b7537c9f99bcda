"""The limits of a server; torch-free."""

from __future__ import annotations

import dataclasses
import re

from slowwave.config import Config

ORIGIN = r"\*|null|[a-z][a-z0-9+.-]*://[^/\s?#@]+"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeConfig(Config):
    """Limits of a server. Each that is met is answered with a status that says so."""

    workers: int = 2
    """Threads that run the model, one CPU core each."""
    max_queue: int = 256
    """Turns that are open or wait at the same time; the next is told to come back (429)."""
    max_open_sessions: int = 256
    """Memories that are kept open; beyond it, those that nobody used longest are closed."""
    max_connections: int = 512
    """Connections that are open at the same time; the next is told to come back (503)."""
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
    header_seconds: float = 10.0
    """Seconds that a client has to send the head of a request; then it is hung up on (408)."""
    body_seconds: float = 60.0
    """Seconds that a client has to send the body of a request (408)."""
    send_seconds: float = 60.0
    """A client that takes nothing of its answer for so many seconds is hung up on."""
    keep_alive_seconds: float = 5.0
    """A stream that has nothing to say sends a comment as often."""
    idle_seconds: float = 300.0
    """A memory that nobody used for so long sleeps when the server has nothing else to do; 0 is
    never."""
    window_characters: int = 16_000
    """With --upstream: characters of the conversation, its newest, that are sent on; but always all
    from the last message by the user."""
    memory_characters: int = 8_000
    """With --upstream: characters of notes and episodes that are sent on."""
    shutdown_seconds: float = 30.0
    """What open requests have to end, once the server is told to stop."""
    origins: tuple[str, ...] = ()
    """Pages from elsewhere that may ask with a key, such as https://app.example; * is any."""

    def __post_init__(self) -> None:
        for origin in self.origins:
            if not re.fullmatch(ORIGIN, origin):
                raise ValueError(
                    f"serve.origins has {origin!r}; write scheme, host and perhaps port alone, "
                    "such as https://app.example, or * for any"
                )
        for field in dataclasses.fields(self):
            if field.name == "origins":
                continue
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
