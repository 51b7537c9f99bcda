"""A text in pieces has the tokens of the whole, and no step takes long."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from slowwave.storage.tokenizer import (
    PIECE,
    ByteTokenizer,
    Tokenizer,
    encode_in_pieces,
    load_tokenizer,
)
from slowwave.storage.tokenizer_file import read_tokenizer_file

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "recipes" / "talk-tokenizer.json"
PROSE = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
# As in the tokenizer files of Qwen: https://huggingface.co/Qwen/Qwen2-0.5B
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train(*splits: pre_tokenizers.PreTokenizer) -> tokenizers.Tokenizer:
    """A byte-level BPE that splits texts so."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(splits))
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([PROSE], trainer)
    return tokenizer


TOKENIZERS = {
    "shipped": read_tokenizer_file(SHIPPED),
    "gpt2": train(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "qwen": train(
        pre_tokenizers.Split(Regex(QWEN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ),
}
ALL = pytest.mark.parametrize("name", TOKENIZERS)


def join(tokenizer: tokenizers.Tokenizer, text: str, piece: int, margin: int) -> list[int]:
    pieces = encode_in_pieces(tokenizer, text, piece=piece, margin=margin)
    return [token for tokens in pieces for token in tokens]


SIGNS = "  \n\t\r'sabcdeE\u00e9\u4e2d\u658712345.,!?-_\U0001f600\u3000\x00"
RUNS = st.tuples(st.sampled_from(SIGNS), st.sampled_from([1, 1, 1, 2, 3, 9]))
TEXTS = st.lists(RUNS, max_size=300).map(lambda runs: "".join(sign * n for sign, n in runs))


@ALL
@given(text=TEXTS | st.text(max_size=300), start=st.integers(0, len(PROSE)))
def test_pieces_have_the_tokens_of_the_whole(name: str, text: str, start: int) -> None:
    tokenizer = TOKENIZERS[name]
    text = text + PROSE[start : start + 300]
    whole = tokenizer.encode(text, add_special_tokens=False).ids
    assert join(tokenizer, text, piece=150, margin=48) == whole


@ALL
def test_it_does_not_matter_where_pieces_end(name: str) -> None:
    tokenizer, text = TOKENIZERS[name], PROSE[:1500]
    whole = tokenizer.encode(text, add_special_tokens=False).ids
    for piece in range(90, 200):
        assert join(tokenizer, text, piece=piece, margin=32) == whole


@ALL
@given(text=st.text(st.sampled_from("ab \n\u4e2d"), max_size=60), repeats=st.integers(1, 9))
def test_words_longer_than_a_piece_come_back_too(name: str, text: str, repeats: int) -> None:
    tokenizer = TOKENIZERS[name]
    tokens = join(tokenizer, text * repeats, piece=7, margin=3)
    assert tokenizer.decode(tokens, skip_special_tokens=False) == text * repeats


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), load_tokenizer(SHIPPED)])
def test_no_step_takes_long(tokenizer: Tokenizer) -> None:
    """Neither of words nor of one word; the latter took 8 seconds at a stretch."""
    for text in (PROSE * (3 * 10**5 // len(PROSE)), "a" * 3 * 10**5, "\n" * 3 * 10**5):
        tokens, longest = list[int](), 0.0
        began = time.thread_time()
        for piece in tokenizer.encode_in_pieces(text):
            tokens += piece
            longest = max(longest, time.thread_time() - began)
            began = time.thread_time()
            assert len(piece) <= PIECE
        assert longest < 0.2
        assert tokenizer.decode(tokens) == text
        assert len(tokens) * tokenizer.max_token_bytes >= len(text.encode())


def test_one_piece_is_encoded_once() -> None:
    assert list(load_tokenizer(SHIPPED).encode_in_pieces("")) == []
    assert len(list(load_tokenizer(SHIPPED).encode_in_pieces(PROSE[:PIECE]))) == 1


@given(st.text())
def test_a_text_has_no_fewer_tokens_than_its_bytes_allow(text: str) -> None:
    tokenizer = load_tokenizer(SHIPPED)
    assert len(tokenizer.encode(text)) * tokenizer.max_token_bytes >= len(text.encode())
