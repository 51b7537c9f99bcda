"""A tokenizer for tests: every byte of UTF-8 is a token."""

from collections.abc import Sequence


class ByteTokenizer:
    """See `slowwave.storage.tokenizer.Tokenizer`."""

    vocab_size = 256
    fingerprint = "bytes"

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode(errors="replace")
