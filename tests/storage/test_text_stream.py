"""Tokenizers that are not accepted yet, and write a token otherwise at the start of a text, can be
streamed all the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers

from slowwave.storage.control_tokens import Controls
from slowwave.storage.tokenizer import TextStream
from slowwave.storage.tokenizer_file import count_ids


class Inexact:
    """A tokenizer of the package as it is."""

    fingerprint = "inexact"
    controls = Controls()
    losses = ("all of it",)

    def __init__(self, made: tokenizers.Tokenizer) -> None:
        self._made, self.vocab_size, self.max_token_bytes = made, count_ids(made), 4

    def encode(self, text: str) -> list[int]:
        return self._made.encode(text).ids

    def encode_in_pieces(self, text: str) -> Iterator[list[int]]:
        yield self.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        return self._made.decode(list(tokens), skip_special_tokens=False)


def pieces() -> Inexact:
    """As of Llama 2: a sign for spaces, bytes for what is no token, no space at the start."""
    signs = {sign: 256 + place for place, sign in enumerate("\u2581abAB")}
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)} | signs | {"\u2581a": 261}
    made = tokenizers.Tokenizer(models.BPE(vocabulary, [("\u2581", "a")], byte_fallback=True))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return Inexact(made)


def words() -> Inexact:
    vocabulary = {"\u2581a": 0, "\u2581b": 1, "\u2581": 2, "?": 5}
    made = tokenizers.Tokenizer(models.WordLevel(vocabulary, "?"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return Inexact(made)


@pytest.mark.parametrize("tokenizer", [pieces(), words()], ids=["pieces", "words"])
@given(text=st.one_of(st.text(), st.text("ab \u4f60")))
def test_a_stream_says_what_decoding_all_at_once_does(tokenizer: Inexact, text: str) -> None:
    tokens, stream = tokenizer.encode(text), TextStream(tokenizer)
    assert "".join(map(stream.push, tokens)) + stream.finish() == tokenizer.decode(tokens)


@given(st.lists(st.integers(0, 5)))
def test_an_id_without_a_token_is_no_start(tokens: list[int]) -> None:
    """3 and 4 say nothing, wherever they stand."""
    tokenizer, stream = words(), TextStream(words())
    assert "".join(map(stream.push, tokens)) + stream.finish() == tokenizer.decode(tokens)
