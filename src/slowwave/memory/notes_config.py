"""Which endpoint notes are written by, and how long they may be; torch-free."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from urllib.parse import urlsplit

from slowwave.config import Config, read_toml

MOST_STEPS = 10
"""Calls of one rewriting, as in sleep-time compute (arXiv 2504.13171, appendix K)."""

MOST_SECONDS = 86_399.0
"""Of a call or a pause: less than a day."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndpointConfig(Config):
    """A chat endpoint in OpenAI's form, and how patient its clients are. It holds no key."""

    url: str
    """What /chat/completions follows, such as http://127.0.0.1:8000/v1."""
    model: str = ""
    """What the endpoint calls its model."""
    key_env: str = ""
    """Environment variable that has the key; "" sends none. The key itself stays there."""
    seconds: float = 120.0
    """How long one call may take, from its beginning to the last byte."""
    retries: int = 3
    """How often a call is repeated that was turned away (429, 5xx) or found nobody."""
    most_wait_seconds: float = 30.0
    """How long one pause between two tries may be, whatever the endpoint asks for."""
    max_tokens: int | None = 2048
    """Tokens that a reply may have; None leaves it to the endpoint."""
    temperature: float | None = 0.0
    """None leaves it to the endpoint, as some models of reasoning want it."""

    def __post_init__(self) -> None:
        _check_url(self.url)
        if self.key_env and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key_env):
            raise ValueError(  # without its value, which may be the key itself
                "endpoint.key_env is no name of an environment variable; name the variable that "
                "has the key, not the key"
            )
        for name in ("seconds", "most_wait_seconds"):
            value = getattr(self, name)
            if not 0 < value <= MOST_SECONDS:
                raise ValueError(f"endpoint.{name} is {value}; use more than 0, less than a day")
        if not 0 <= self.retries <= 20:
            raise ValueError(f"endpoint.retries is {self.retries!r:.80}; use 0 to 20")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"endpoint.max_tokens is {self.max_tokens!r:.80}; use 1 or more")
        if self.temperature is not None and not 0 <= self.temperature <= 100:
            raise ValueError(f"endpoint.temperature is {self.temperature}; use 0 to 100")


def _check_url(url: str) -> None:
    if any(sign in url for sign in "@?#"):
        raise ValueError(  # without its value, which may hold a key
            "endpoint.url has a user, a query or a fragment, where keys would be written down; "
            "leave them out, and name the key's variable by endpoint.key_env"
        )
    try:
        parts = urlsplit(url)
        fault = parts.port == 0  # reading a port that is none raises ValueError
    except ValueError:
        fault = True
    else:
        fault = fault or parts.scheme not in ("http", "https") or not parts.hostname
        fault = fault or not (url.isascii() and url.isprintable() and " " not in url)
    if fault:
        raise ValueError(f"endpoint.url is {url!r:.200}; use one as http://127.0.0.1:8000/v1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NotesConfig(Config):
    """How a memory's notes are kept."""

    limit: int = 5000
    """Characters that a block of notes may have (5,000 in sleep-time compute)."""
    max_steps: int = MOST_STEPS
    """Calls in which one block is rewritten, at most."""
    context_characters: int = 16_000
    """Characters of what was said that are shown in one rewriting; more takes several."""
    check: bool = True
    """Whether a second call holds each new line of the block against what was said."""
    episodes: bool = True
    """Whether what was told is also kept as episodes: a call for each message that is new."""

    def __post_init__(self) -> None:
        for name, least in (("limit", 1), ("context_characters", 100)):
            value = getattr(self, name)
            if not least <= value <= 10**7:
                raise ValueError(f"notes.{name} is {value!r:.80}; use {least} to 10,000,000")
        if not 1 <= self.max_steps <= MOST_STEPS:
            raise ValueError(f"notes.max_steps is {self.max_steps!r:.80}; use 1 to {MOST_STEPS}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NotesFile(Config):
    """What a TOML file says of notes: sections [endpoint] and, if need be, [notes]."""

    endpoint: EndpointConfig
    notes: NotesConfig = dataclasses.field(default_factory=NotesConfig)


def read_notes_file(path: str | Path) -> NotesFile:
    """The settings in a TOML file; raises ValueError, which names the file and what is unfit."""
    values = read_toml(path)
    try:
        return NotesFile.from_dict(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
