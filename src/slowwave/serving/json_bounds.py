"""How much there is in a JSON text, found out before it is parsed.

A parser makes an object of each of its values, and a checker perhaps an error, which takes a
thousand times as long as to count them. Every step here is one of C over a piece of the text.
"""

from __future__ import annotations

MOST_VALUES = 2**15
"""Values in a body: 4096 messages with a name and a part each have 28,672."""
MOST_DEPTH = 32
MOST_DIGITS = 100
"""Signs of a number; nothing here needs more than a float's or a 64-bit integer's."""
PIECE = 2**16

_BRACKETS = b"[]{}"
_NO_BRACKETS = bytes(set(range(256)) - set(_BRACKETS))
_SEPARATORS = bytes.maketrans(b"[]{},:", b" " * 6)


def require_bounds(text: bytes) -> None:
    """Raises ValueError if a UTF-8 text has more in it than may be parsed.

    It need not be JSON: what is none is left to the parser.
    """
    is_string, escape, num_values, depth = False, b"", 0, 0
    for start in range(0, len(text), PIECE):
        piece = escape + text[start : start + PIECE]
        # Quotes within strings, and then every other one of those left begins a string.
        piece = piece.replace(rb"\\", b"").replace(rb"\"", b"")
        escape = b"\\" if piece.endswith(b"\\") else b""
        parts = piece.removesuffix(b"\\").split(b'"')
        structure = b" ".join(parts[1 if is_string else 0 :: 2])
        is_string ^= len(parts) % 2 == 0
        num_values += structure.count(b",") + structure.count(b"[") + structure.count(b"{")
        if num_values > MOST_VALUES:
            raise ValueError(f"the body has more than {MOST_VALUES} values; send less")
        depth = _follow(structure, depth)
        words = structure.translate(_SEPARATORS).split()
        if max(map(len, words), default=0) > MOST_DIGITS:
            raise ValueError(
                f"the body has a number of more than {MOST_DIGITS} digits; write a shorter one"
            )


def _follow(structure: bytes, depth: int) -> int:
    """How deep it is at the end of a piece; raises ValueError if it is too deep before."""
    brackets = structure.translate(None, _NO_BRACKETS)
    if brackets.count(b"]") + brackets.count(b"}") > MOST_VALUES:
        return depth  # that is no JSON
    for bracket in brackets:
        depth += 1 if bracket in b"[{" else -1
        if depth > MOST_DEPTH:
            raise ValueError(f"the body nests more than {MOST_DEPTH} levels; make it flatter")
    return depth
