"""The tokenizer of a GGUF file, as the tokenizer.json that the tokenizers package reads.

Byte-level BPE alone ("gpt2" in the file's words); its kinds differ in how they cut text into words.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Part = dict[str, Any]

CONTROL, USER_DEFINED = 3, 4
"""Types of tokens; those of other types are plain."""
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"


def _bytes(*, cuts: bool) -> Part:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": cuts}


def _cut(pattern: str) -> list[Part]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
    return [split | {"invert": False}, _bytes(cuts=False)]


_GPT2 = [_bytes(cuts=True)]
_CUTS = {
    "default": _GPT2,
    "gpt-2": _GPT2,
    "smollm": [{"type": "Digits", "individual_digits": True}, *_GPT2],
    "qwen2": _cut(_QWEN2),
    "deepseek-r1-qwen": _cut(_QWEN2),
    "llama-bpe": _cut(_LLAMA3),
}
"""How each kind cuts, by tokenizer.ggml.pre."""


def write_tokenizer(metadata: dict[str, Any], path: Path) -> bytes:
    """The content of tokenizer.json, from the metadata of the GGUF file at a path.

    Raises ValueError if the file has no tokenizer, or one of a kind that is not known.
    """
    try:
        return json.dumps(_convert(metadata), ensure_ascii=False).encode()
    except KeyError as error:
        raise ValueError(
            f"{path}: has no {error.args[0]}, so its tokenizer cannot be read; use another file"
        ) from None
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: its tokenizer cannot be read ({error}); use a folder with a tokenizer.json"
        ) from None


def _convert(metadata: dict[str, Any]) -> Part:
    kind, pre = metadata["tokenizer.ggml.model"], metadata.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or pre not in _CUTS:
        known = ", ".join(_CUTS)
        raise ValueError(f"it is {kind!r:.40} of {pre!r:.40}; known is 'gpt2' of {known}")
    tokens, merges = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.merges"]
    types = [int(kind) for kind in metadata.get("tokenizer.ggml.token_type", [])]
    if not _are_texts(tokens) or not _are_texts(merges):
        raise ValueError("its tokens or merges are no texts")
    pairs = [merge.split(" ") for merge in merges]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("a merge is not of two tokens")
    if len(set(tokens)) < len(tokens):
        raise ValueError("it has a token twice")
    if len(types) not in (0, len(tokens)):
        raise ValueError(f"it has {len(tokens)} tokens and {len(types)} types")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _add(number, tokens[number], is_control=kind == CONTROL)
            for number, kind in enumerate(types)
            if kind in (CONTROL, USER_DEFINED)
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": _CUTS[pre]},
        "post_processor": _write_begin(metadata, tokens, begins=pre == "llama-bpe"),
        "decoder": _bytes(cuts=True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre == "llama-bpe",
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": pairs,
        },
    }


def _add(number: int, content: str, *, is_control: bool) -> Part:
    marks = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, **marks, "special": is_control}


def _write_begin(metadata: dict[str, Any], tokens: list[str], *, begins: bool) -> Part | None:
    """The part that puts a token in front of every text, if the file says so.

    begins: whether tokenizers of this kind do, where it says nothing.
    """
    number = metadata.get("tokenizer.ggml.bos_token_id")
    if not metadata.get("tokenizer.ggml.add_bos_token", begins) or number is None:
        return None
    token = tokens[_check_id(number, tokens)]
    begin, text = {"SpecialToken": {"id": token, "type_id": 0}}, _sequence("A")
    named = {token: {"id": token, "ids": [number], "tokens": [token]}}
    return {
        "type": "TemplateProcessing",
        "single": [begin, text],
        "pair": [begin, text, _sequence("B")],
        "special_tokens": named,
    }


def _sequence(name: str) -> Part:
    return {"Sequence": {"id": name, "type_id": 0}}


def _check_id(number: Any, tokens: list[str]) -> int:
    if not isinstance(number, int) or not 0 <= number < len(tokens):
        raise ValueError(f"token id {number!r:.40} is not among its {len(tokens)} tokens")
    return number


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)
