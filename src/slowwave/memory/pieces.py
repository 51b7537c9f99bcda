"""A long text in pieces, each of which can be read, and kept, by itself."""

from __future__ import annotations

from collections.abc import Sequence

PIECE = 4096
"""Characters of a piece at most: about a second of reading for a small model."""


def cut_text(text: str, most: int = PIECE) -> list[str]:
    """The text in pieces of at most so many characters.

    A piece ends with a paragraph or a line, or before the space between two words, if any of them
    ends in its second half. The pieces, one after the other, are the text.
    """
    pieces, start = list[str](), 0
    while len(text) - start > most:
        stop = _find_end(text, start + most // 2, start + most)
        pieces.append(text[start:stop])
        start = stop
    return [*pieces, text[start:]]


def count_known(pieces: Sequence[str], told: Sequence[str]) -> int:
    """How many of the first pieces were told last, where a reading of all of them broke off.

    0 if all were: then it did not break off.
    """
    if [*told[-len(pieces) :]] == [*pieces]:
        return 0
    for count in range(min(len(pieces) - 1, len(told)), 0, -1):
        if told[-count] == pieces[0] and [*told[-count:]] == [*pieces[:count]]:
            return count
    return 0


def _find_end(text: str, low: int, high: int) -> int:
    for mark in ("\n\n", "\n"):
        place = text.rfind(mark, low, high)
        if place >= 0:
            return place + len(mark)
    place = text.rfind(" ", low, high)
    return high if place <= 0 else place
