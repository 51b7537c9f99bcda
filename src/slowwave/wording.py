"""Words of sentences that refuse something: what may have been meant, what can be chosen, and how
to install what is missing."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Literal

MOST_GUESSES = 2
LEAST_LIKENESS = 0.7

# slowwave is in no package index, so what brings an optional part is a checkout.
Extra = Literal["plot", "text", "serve", "models", "bench", "eval", "cuda"]

# The target of the Makefile that installs an extra, where there is one.
_TARGETS: dict[Extra, str] = {
    "plot": "make demo",
    "text": "make chat",
    "models": "make chat",
    "serve": "make serve",
    "bench": "make test",
}
MODULES: dict[str, Extra] = {
    "matplotlib": "plot",
    "tokenizers": "text",
    "gguf": "models",
    "jinja2": "models",
    "huggingface_hub": "models",
    "fastapi": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
    "prometheus_client": "serve",
    "transformers": "bench",
    "lm_eval": "eval",
    "fla": "cuda",
}
"""Which extra brings a module."""


def find_close(word: str, known: Iterable[str]) -> list[str]:
    """The known words that `word` may be a slip of, or begins or goes on from; likeliest first."""
    by_case = {name.lower(): name for name in known}
    begun = [name for name in by_case if len(word) > 1 and name.startswith(word.lower())]
    begun += [name for name in by_case if len(name) > 2 and word.lower().startswith(name)]
    close = get_close_matches(word.lower(), by_case, n=MOST_GUESSES, cutoff=LEAST_LIKENESS)
    return [by_case[name] for name in [*dict.fromkeys([*begun, *close])][:MOST_GUESSES]]


def guess(word: str, known: Iterable[str]) -> str:
    """ "did you mean this or that?", or nothing where no known word is close."""
    close = find_close(word, known)
    return f"did you mean {' or '.join(close)}?" if close else ""


def describe_unknown(what: str, word: str, known: Iterable[str]) -> str:
    """A sentence that says that there is no such thing, and what may have been meant."""
    names = [*known]
    mend = guess(word, names) or f"use one of {', '.join(names)}"
    return f"unknown {what} {word!r}; {mend}"


def describe_range(first: int, last: int) -> str:
    """The half of a sentence that says which whole numbers can be used, if any."""
    if last < first:
        return "there is none to use"
    return f"use {first}, there is no other" if first == last else f"use {first} to {last}"


def say_how_to_install(extra: Extra) -> str:
    """The half of a sentence about something missing that says what to do."""
    by_hand = f"pip install -e '.[{extra}]'"
    target = _TARGETS.get(extra)
    return f"install it in a checkout of slowwave: {f'{target}, or ' if target else ''}{by_hand}"
