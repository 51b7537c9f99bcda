"""A tokenizer for tests: every byte of UTF-8 is a token."""

from collections.abc import Iterator, Sequence

from slowwave.storage.control_tokens import Controls


class ByteTokenizer:
    """See `slowwave.storage.tokenizer.Tokenizer`."""

    vocab_size = 256
    fingerprint = "bytes"
    max_token_bytes = 1
    controls = Controls()
    losses = ()

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_in_pieces(self, text: str) -> Iterator[list[int]]:
        yield from [self.encode(text)] if text else []

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode(errors="replace")
