"""Why a tokenizer file is not exact, told from what it says instead of from texts that were tried.

Byte-level BPE is exact: UTF-8 becomes signs of an alphabet with one sign for each byte, cuts lose
none of them, merges only join them, and the decoder turns each into its byte again. Every other
part that touches the text is named here; a part that is not known counts as one that changes text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tokenizers
    from tokenizers import AddedToken, models

NAMED = 3  # tokens in a clause

Part = dict[str, Any]


def find_inexact_parts(
    tokenizer: tokenizers.Tokenizer, vocabulary: dict[str, int] | None = None
) -> list[str]:
    """What may keep `decode(encode(text))` from being the text, a clause each; empty if nothing.

    Holds where `encode_special_tokens` is on: the text of a special token is then text like any.
    vocabulary: its tokens but for added ones, where they are known already.
    """
    # What the package made of the file, so that old forms and defaults need no care.
    return [
        *(
            f"its normalizer {part['type']} changes text"
            for part in _flatten(_describe(tokenizer.normalizer), "normalizers")
        ),
        *_judge_cuts(_flatten(_describe(tokenizer.pre_tokenizer), "pretokenizers")),
        *_judge_model(tokenizer.model, vocabulary or tokenizer.get_vocab(with_added_tokens=False)),
        *_judge_added([*tokenizer.get_added_tokens_decoder().values()]),
        *_judge_decoder(_flatten(_describe(tokenizer.decoder), "decoders")),
    ]


def find_id_faults(
    tokenizer: tokenizers.Tokenizer, added: Iterable[Part], vocabulary: dict[str, int]
) -> list[str]:
    """Where ids are not those of the file, or do not tell tokens apart, a clause each.

    added: the added tokens of the file, which the package numbers anew, by the count of tokens.
    vocabulary: the other tokens.
    """
    faults: list[str] = []
    for each in added:
        given, taken = each["id"], tokenizer.token_to_id(each["content"])
        if taken is not None and taken != given:  # one without text is never read
            faults.append(f"its added token {each['content']!r} has id {given}, read as {taken}")
    ids = set(vocabulary.values())
    apart = [
        number not in ids or vocabulary.get(each.content) == number
        for number, each in tokenizer.get_added_tokens_decoder().items()
    ]
    if len(ids) == len(vocabulary) and all(apart):
        return faults
    for token, number in vocabulary.items():
        named = tokenizer.id_to_token(number)
        if named != token:
            faults.append(f"its tokens {token!r} and {named!r} share id {number}")
    return faults


def _describe(part: Any) -> Part | None:
    """A part of a tokenizer as its file would have it."""
    return None if part is None else json.loads(part.__getstate__())


def _flatten(part: Part | None, members: str) -> list[Part]:
    """The parts of a sequence of sequences, in order."""
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    return [inner for member in part[members] for inner in _flatten(member, members)]


def _judge_cuts(parts: list[Part]) -> Iterator[str]:
    for part in parts:
        match part:
            case {"type": "ByteLevel", "add_prefix_space": True}:
                yield "its pre-tokenizer ByteLevel adds a space in front (add_prefix_space)"
            case {"type": "Split" | "Punctuation" as kind, "behavior": "Removed"}:
                yield f"its pre-tokenizer {kind} drops what it finds (Removed)"
            case {"type": "ByteLevel" | "Split" | "Punctuation" | "Digits" | "FixedLength"}:
                pass
            case {"type": kind}:  # UnicodeScripts too: it drops spaces at the start
                yield f"its pre-tokenizer {kind} drops or changes text"
    count = sum(part["type"] == "ByteLevel" for part in parts)
    if count != 1:
        yield f"its pre-tokenizers have ByteLevel {count} times, not once"


def _judge_model(model: models.Model, vocabulary: dict[str, int]) -> Iterator[str]:
    kind = type(model).__name__
    if kind != "BPE":
        yield f"its model is {kind}, not BPE"
        return
    for mark in ("continuing_subword_prefix", "end_of_word_suffix"):
        if written := getattr(model, mark):
            yield f"its model writes {written!r} into tokens ({mark})"
    missing = len(_alphabet() - vocabulary.keys())
    if missing:
        yield f"its vocabulary lacks {missing} of the 256 signs for bytes"


def _judge_added(tokens: list[AddedToken]) -> Iterator[str]:
    plain = [token for token in tokens if not token.special]  # special ones are not looked for
    strips = [token.content for token in plain if token.lstrip or token.rstrip]
    if strips:
        yield f"its added tokens take the spaces beside them (lstrip, rstrip): {_name(strips)}"
    # The decoder takes a token of such signs alone for bytes; of ASCII they are their own.
    signs = _alphabet()
    bytes_ = [text for token in plain if signs.issuperset(text := token.content)]
    misread = [text for text in bytes_ if not text.isascii()]
    if misread:
        yield f"its added tokens are decoded as bytes: {_name(misread)}"


def _judge_decoder(parts: list[Part]) -> Iterator[str]:
    kinds = [part["type"] for part in parts]
    if kinds not in (["ByteLevel"], ["ByteLevel", "Fuse"]):
        yield f"its decoder is {', '.join(kinds) or 'missing'}, not ByteLevel"


def _alphabet() -> frozenset[str]:
    """The 256 signs that byte-level tokenizers write bytes in."""
    from tokenizers.pre_tokenizers import ByteLevel

    return frozenset(ByteLevel.alphabet())


def _name(tokens: list[str]) -> str:
    rest = len(tokens) - NAMED
    return ", ".join(map(repr, tokens[:NAMED])) + (f" and {rest} more" if rest > 0 else "")
