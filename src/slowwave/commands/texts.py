"""Texts from outside, which must be UTF-8."""

from __future__ import annotations


def decode(content: bytes, where: str) -> str:
    """The text of some bytes; raises ValueError naming `where` they are from."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: byte {error.start} is not UTF-8; convert the text to UTF-8"
        ) from None


def require_text(text: str, where: str) -> str:
    """An argument as it is; raises ValueError if its bytes were no UTF-8."""
    return decode(text.encode("utf-8", errors="surrogateescape"), where)
