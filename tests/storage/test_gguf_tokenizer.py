"""Tokenizers of GGUF files: the ids are those of the tokenizers that the files were made from."""

from __future__ import annotations

import os
import random
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, pre_tokenizers

from slowwave.storage.gguf_file import GgufFile
from slowwave.storage.gguf_tokenizer import write_tokenizer
from slowwave.storage.tokenizer import FileTokenizer
from tokenizer_maker import MERGED, MERGES

PATH = Path("a.gguf")
PUBLISHED = os.environ.get("SLOWWAVE_SMOLLM2", "")
CONTROL, USER_DEFINED = 3, 4
SIGNS = "The fox's 12345 3.14 don't  \n\n\t \u00e9 \u4f60\U0001f600 {}[]I'LL\r\n\u00a0\u2028"


def make(**changes: Any) -> dict[str, Any]:
    """Metadata of a file with two tokens more than a byte-level BPE has. None leaves out."""
    tokens = [*MERGED, "<|im_end|>", "<tool>"]
    metadata = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tokens,
        "token_type": [1] * len(MERGED) + [CONTROL, USER_DEFINED],
        "merges": [" ".join(pair) for pair in MERGES],
    }
    changed = {name: value for name, value in (metadata | changes).items() if value is not None}
    return {f"tokenizer.ggml.{name}": value for name, value in changed.items()}


def load(**changes: Any) -> FileTokenizer:
    return FileTokenizer(PATH, exact=False, content=write_tokenizer(make(**changes), PATH))


def test_tokens_keep_their_ids_and_uses() -> None:
    tokenizer = load()
    assert tokenizer.losses == ()
    assert tokenizer.vocab_size == len(MERGED) + 2
    assert tokenizer.control_tokens == {"<|im_end|>": len(MERGED)}
    assert tokenizer.encode("ab ab") == [MERGED["ab"], MERGED["\u0120"], MERGED["ab"]]
    assert tokenizer.encode("<tool>") == [len(MERGED) + 1]
    assert len(MERGED) not in tokenizer.encode("<|im_end|>")
    assert tokenizer.encode_template("a<|im_end|>") == [MERGED["a"], len(MERGED)]


# How each kind cuts a text that tells them apart, as its authors publish it.
TEXT = "don't DON'T\n\n 1234\r\n x!\n"
WORDS = {
    "gpt-2": ["don", "'t", " DON", "'", "T", "\n\n", " 1234", "\r\n", " x", "!", "\n"],
    "default": ["don", "'t", " DON", "'", "T", "\n\n", " 1234", "\r\n", " x", "!", "\n"],
    "smollm": [
        *("don", "'t", " DON", "'", "T", "\n\n ", "1", "2", "3", "4", "\r\n", " x", "!", "\n"),
    ],
    "qwen2": [
        *("don", "'t", " DON", "'T", "\n\n", " ", "1", "2", "3", "4", "\r\n", " x", "!\n"),
    ],
    "llama-bpe": ["don", "'t", " DON", "'T", "\n\n", " ", "123", "4", "\r\n", " x", "!\n"],
}


@pytest.mark.parametrize("pre", WORDS)
def test_each_kind_cuts_words_in_its_own_way(pre: str) -> None:
    made = Tokenizer.from_str(write_tokenizer(make(pre=pre), PATH).decode())
    assert made.pre_tokenizer is not None
    cuts = [TEXT[start:stop] for _, (start, stop) in made.pre_tokenizer.pre_tokenize_str(TEXT)]
    assert cuts == WORDS[pre]


def test_a_begin_token_is_put_in_front_where_the_file_says_so() -> None:
    begin = len(MERGED)
    assert load(bos_token_id=begin).find_beginning() == []
    assert load(bos_token_id=begin, add_bos_token=True).find_beginning() == [begin]
    assert load(bos_token_id=begin, pre="llama-bpe").find_beginning() == [begin]
    assert load(bos_token_id=begin, pre="llama-bpe", add_bos_token=False).find_beginning() == []
    assert load(pre="llama-bpe").find_beginning() == []


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another model": ({"model": "llama"}, "it is 'llama' of 'gpt-2'; known is 'gpt2' of default,"),
    "another kind": ({"pre": "tekken"}, "it is 'gpt2' of 'tekken'; known is"),
    "a list": ({"pre": []}, "cannot be read"),
    "no tokens": ({"tokens": None}, r"has no tokenizer\.ggml\.tokens"),
    "no merges": ({"merges": None}, r"has no tokenizer\.ggml\.merges"),
    "tokens of numbers": ({"tokens": [1, 2]}, "its tokens or merges are no texts"),
    "a merge of three": ({"merges": ["a b c"]}, "a merge is not of two tokens"),
    "a merge of strangers": ({"merges": ["zz yy"]}, "cannot be read as a tokenizer"),
    "a token twice": ({"tokens": [*MERGED, "a", "b"]}, "it has a token twice"),
    "too few types": ({"token_type": [1]}, "and 1 types"),
    "a begin that is no token": (
        {"bos_token_id": 999, "add_bos_token": True},
        "token id 999 is not among its 265 tokens",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_unfit_tokenizer_is_refused(name: str) -> None:
    changes, sentence = REFUSED[name]
    with pytest.raises(ValueError, match=rf"^a\.gguf: .*{sentence}"):
        load(**changes)


@pytest.mark.skipif(not PUBLISHED, reason="SLOWWAVE_SMOLLM2 names no GGUF file of SmolLM2")
def test_published_tokenizer_has_the_ids_that_transformers_makes_of_the_file() -> None:
    from transformers import AutoTokenizer

    path = Path(PUBLISHED)
    content = write_tokenizer(GgufFile(path).metadata, path)
    ours = FileTokenizer(path, exact=False, content=content)
    theirs = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).backend_tokenizer
    theirs.encode_special_tokens = True
    # That conversion leaves out that digits stand alone, as the model's own tokenizer.json says.
    digits = pre_tokenizers.Digits(individual_digits=True)
    theirs.pre_tokenizer = pre_tokenizers.Sequence([digits, theirs.pre_tokenizer])
    draw = random.Random(0)
    for _ in range(2000):
        text = "".join(draw.choice(SIGNS) for _ in range(draw.randrange(60)))
        text = unicodedata.normalize("NFC", text + chr(draw.randrange(32, 0xD000)))
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids
