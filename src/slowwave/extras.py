"""How to install what slowwave needs for some purposes alone; it is in no package index."""

from __future__ import annotations

from typing import Literal

Extra = Literal["plot", "text", "serve", "bench", "cuda"]

# The target of the Makefile that installs it, where there is one.
_TARGETS: dict[Extra, str] = {
    "plot": "make demo",
    "text": "make chat",
    "serve": "make serve",
    "bench": "make test",
}
MODULES: dict[str, Extra] = {
    "matplotlib": "plot",
    "tokenizers": "text",
    "fastapi": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
    "prometheus_client": "serve",
    "transformers": "bench",
    "fla": "cuda",
}
"""Which extra brings a module."""


def say_how_to_install(extra: Extra) -> str:
    """The half of a sentence about something missing that says what to do."""
    by_hand = f"pip install -e '.[{extra}]'"
    target = _TARGETS.get(extra)
    return f"install it in a checkout of slowwave: {f'{target}, or ' if target else ''}{by_hand}"
