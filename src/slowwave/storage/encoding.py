"""A text as tokens, a piece of it at a time, so that no step takes long, however long it is.

The tokenizers package takes a second for a million characters and keeps the interpreter for itself
meanwhile, and its merges need more than linear time in the longest word.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tokenizers

PIECE = 8192
"""Characters that are encoded at once, in about 5 ms."""
MARGIN = 128
"""Characters after a cut that were seen when it was chosen."""


@contextlib.contextmanager
def explain_panics(sentence: str, mend: str) -> Iterator[None]:
    """Raises ValueError where the package fails on its own, which `except Exception` lets by."""
    try:
        yield
    except BaseException as error:
        if type(error).__module__ != "pyo3_runtime":  # the class itself has no name to import
            raise
        raise ValueError(f"{sentence} ({error}); {mend}") from None


def encode_in_pieces(
    tokenizer: tokenizers.Tokenizer, text: str, *, piece: int = PIECE, margin: int = MARGIN
) -> Iterator[list[int]]:
    """The token ids of a text, some at a time; of an empty one there are none.

    Together they are what the tokenizer makes of the whole: it splits a text into words before it
    encodes each by itself, and texts are cut between words alone, which a tokenizer finds from left
    to right and by what is near. A word as long as a piece is cut all the same, and has the tokens
    of its parts; decoding gives back the text there too.

    Raises ValueError if the tokenizer cannot encode the text, as some of its patterns may not.
    """
    start = 0
    while start < len(text):
        encoding = _encode(tokenizer, text[start : start + piece])
        stop = start + piece
        if stop >= len(text):
            yield encoding.ids
            return
        count, num_after = _find_cut(tokenizer, encoding, margin)
        if text[stop - num_after : stop] != tokenizer.decode(encoding.ids[count:]):
            count, num_after = len(encoding.ids), 0
        yield encoding.ids[:count]
        start = stop - num_after


def _encode(tokenizer: tokenizers.Tokenizer, text: str) -> tokenizers.Encoding:
    with explain_panics("the tokenizer cannot encode the text", "use another of the two"):
        return tokenizer.encode(text, add_special_tokens=False)


def _find_cut(
    tokenizer: tokenizers.Tokenizer, encoding: tokenizers.Encoding, margin: int
) -> tuple[int, int]:
    """The tokens before the last word that ends in front of the margin, and the characters after.

    All tokens and 0 if there is no such word.
    """
    ids, words = encoding.ids, encoding.word_ids
    for place in range(len(ids) - 1, 0, -1):
        if words[place] == words[place - 1]:
            continue
        num_after = len(tokenizer.decode(ids[place:]))
        if num_after >= margin:
            return place, num_after
    return len(ids), 0
