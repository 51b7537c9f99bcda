"""Words of sentences that refuse something: what was meant, and what can be chosen."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MOST_GUESSES = 2
LEAST_LIKENESS = 0.7


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
