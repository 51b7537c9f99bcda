"""Text to token ids and back: by bytes, or by a tokenizer file whose decoding is exact."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from slowwave.extras import say_how_to_install

if TYPE_CHECKING:
    import tokenizers

NUM_BYTES = 256

_REPLACEMENT = "\ufffd"
# What inexact tokenizers change: case, spaces, accents made of two code points, unknown signs.
_PROBE = " A  b\t\n\n 12 don't e\u0301 \u00e9 \u212b \u4f60 \U0001f600 \x00 "


class Tokenizer(Protocol):
    """Text as token ids: any text has some, and `decode(encode(text))` is that text."""

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        ...

    @property
    def fingerprint(self) -> str:
        """What tells tokenizers apart: equal for two that read and write alike."""
        ...

    def encode(self, text: str) -> list[int]:
        """The token ids of a text; of an empty one none."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids, with U+FFFD where their bytes are no UTF-8."""
        ...


class ByteTokenizer:
    """Every byte of UTF-8 is a token."""

    vocab_size = NUM_BYTES
    fingerprint = "bytes"

    def encode(self, text: str) -> list[int]:
        """See `Tokenizer.encode`."""
        return list(text.encode("utf-8"))

    def decode(self, tokens: Sequence[int]) -> str:
        """See `Tokenizer.decode`."""
        return bytes(tokens).decode("utf-8", errors="replace")


class FileTokenizer:
    """A tokenizer.json of the tokenizers package, in practice byte-level BPE.

    content: the file, byte for byte. Raises ValueError if it cannot be read or is not exact.
    """

    def __init__(self, path: str | Path) -> None:
        self._tokenizer = read_tokenizer_file(path)
        self.content = Path(path).read_bytes()
        self.vocab_size = self._tokenizer.get_vocab_size()
        self.fingerprint = hashlib.sha256(self.content).hexdigest()
        if self.decode(self.encode(_PROBE)) != _PROBE:
            raise ValueError(
                f"{path}: decoding does not give back the text that was encoded; name a byte-level "
                "BPE without a normalizer, or leave it out to read bytes"
            )

    def encode(self, text: str) -> list[int]:
        """See `Tokenizer.encode`."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, tokens: Sequence[int]) -> str:
        """See `Tokenizer.decode`."""
        return self._tokenizer.decode(list(tokens), skip_special_tokens=False)


class TextStream:
    """Decodes tokens as they come, and holds back what is not a whole character yet."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._held: list[int] = []

    def push(self, token: int) -> str:
        """The text that `token` completes; empty while a character lacks bytes."""
        self._held.append(token)
        text = self._tokenizer.decode(self._held)
        if not text.endswith(_REPLACEMENT):
            self._held = []
            return text
        # Perhaps only the last tokens are a character to be: what they do not change is certain.
        # So no more is held than a character can have, whatever bytes come.
        for count in range(1, len(self._held)):
            certain, open_ = self._held[:-count], self._held[-count:]
            before = self._tokenizer.decode(certain)
            if before + self._tokenizer.decode(open_) == text:
                self._held = open_
                return before
        return ""

    def finish(self) -> str:
        """What is still held back, with U+FFFD for a character that stayed incomplete."""
        text, self._held = self._tokenizer.decode(self._held), []
        return text


def load_tokenizer(path: str | Path | None) -> ByteTokenizer | FileTokenizer:
    """The tokenizer of a file, or bytes if there is none; raises ValueError as FileTokenizer."""
    return ByteTokenizer() if path is None else FileTokenizer(path)


def read_tokenizer_file(path: str | Path) -> tokenizers.Tokenizer:
    """Any tokenizer.json, as the tokenizers package reads it, that neither cuts nor pads.

    Raises ValueError if the package is missing or cannot read the file.
    """
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError:
        raise ValueError(
            f"{path}: the tokenizers package, which reads it, is not installed; "
            f"{say_how_to_install('text')}"
        ) from None
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise ValueError(
            f"{path}: cannot be read as a tokenizer ({error}); name a tokenizer.json of the "
            "tokenizers package"
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
