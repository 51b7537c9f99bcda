"""Tokenizers of the package, put together in memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

Values = dict[str, Any]

SIGNS = sorted(pre_tokenizers.ByteLevel.alphabet())
IDS = {sign: place for place, sign in enumerate(SIGNS)}
MERGES = [("a", "b"), ("Ġ", "a"), ("Ġa", "b"), ("Ã", "©"), ("Ċ", "Ċ"), ("<", "|"), ("x", "ä")]
MERGED = IDS | {"".join(pair): 256 + place for place, pair in enumerate(MERGES)}

BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)


def make(
    *cuts: pre_tokenizers.PreTokenizer,
    model: models.Model | None = None,
    decoder: decoders.Decoder | None = None,
    added: Sequence[str | AddedToken] = (),
) -> tokenizers.Tokenizer:
    """Byte-level BPE, but for what is said."""
    made = tokenizers.Tokenizer(model or models.BPE(MERGED, MERGES))
    made.pre_tokenizer = pre_tokenizers.Sequence(list(cuts or [GPT2]))
    made.decoder = decoder or decoders.ByteLevel()
    made.add_tokens(list(added))
    return made


def change(made: tokenizers.Tokenizer, **values: object) -> tokenizers.Tokenizer:
    """The same with attributes set, such as its normalizer."""
    for name, value in values.items():
        setattr(made, name, value)
    return made


def values_of(made: tokenizers.Tokenizer) -> Values:
    return json.loads(made.to_str())


def make_chat(*controls: str) -> tokenizers.Tokenizer:
    """Byte-level BPE with control tokens."""
    return make(added=[AddedToken(content, special=True) for content in controls])
