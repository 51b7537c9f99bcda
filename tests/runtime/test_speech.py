"""Tokenizer, chat and control tokens from the files of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chat_templates import LLAMA3, SMOLLM2, Published
from gguf_maker import write_gguf
from slowwave.runtime.chat import TemplateChat
from slowwave.runtime.config import PLAIN
from slowwave.runtime.speech import read_speech
from tokenizer_maker import MERGED, MERGES, make_chat, values_of

IM_END, ENDOFTEXT = "<|im_end|>", "<|endoftext|>"


def write_folder(folder: Path, published: Published, **settings: Any) -> int:
    """The files of a model that concern speech; returns the size of its vocabulary."""
    values = values_of(make_chat(*published.controls))
    (folder / "tokenizer.json").write_text(json.dumps(values))
    told = {"bos_token": published.bos, "eos_token": {"content": published.eos}}
    (folder / "tokenizer_config.json").write_text(json.dumps(told | settings))
    return len(values["model"]["vocab"]) + len(published.controls)


def write_file(path: Path, published: Published, **texts: str) -> int:
    tokens, num_words = [*MERGED, *published.controls], len(MERGED)
    write_gguf(
        path,
        {"x": np.ones((2, 4), np.float32)},
        texts={
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "gpt-2",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.merges": [" ".join(pair) for pair in MERGES],
            **{f"tokenizer.{key}": value for key, value in texts.items()},
        },
        numbers={
            "tokenizer.ggml.token_type": [1] * num_words + [3] * len(published.controls),
            "tokenizer.ggml.eos_token_id": tokens.index(published.eos),
        },
    )
    return len(tokens)


def test_a_folder_and_a_file_speak_alike(tmp_path: Path) -> None:
    size = write_folder(tmp_path, SMOLLM2, chat_template=SMOLLM2.text)
    file = tmp_path / "a.gguf"
    assert write_file(file, SMOLLM2, chat_template=SMOLLM2.text) == size
    folder_speech, file_speech = read_speech(tmp_path, size), read_speech(file, size)
    assert isinstance(folder_speech.chat, TemplateChat)
    assert folder_speech.chat == file_speech.chat
    for text in ("ab ab", "<|im_end|>", "\u00e9"):
        assert folder_speech.tokenizer.encode(text) == file_speech.tokenizer.encode(text)


def test_where_a_folder_keeps_its_template(tmp_path: Path) -> None:
    size = write_folder(tmp_path, SMOLLM2, chat_template=SMOLLM2.text)
    expected = read_speech(tmp_path, size).chat
    named = [{"name": "tools", "template": "x"}, {"name": "default", "template": SMOLLM2.text}]
    write_folder(tmp_path, SMOLLM2, chat_template=named)
    assert read_speech(tmp_path, size).chat == expected
    write_folder(tmp_path, SMOLLM2, chat_template="another")
    (tmp_path / "chat_template.jinja").write_text(SMOLLM2.text)
    assert read_speech(tmp_path, size).chat == expected


def test_without_a_template_there_is_no_chat(tmp_path: Path) -> None:
    for template in (None, 7, "", [7], [{"name": "tools", "template": "x"}]):
        size = write_folder(tmp_path, SMOLLM2, chat_template=template)
        assert read_speech(tmp_path, size).chat is None


def test_a_transcript_is_plain_and_ends_by_control_tokens_too(tmp_path: Path) -> None:
    size = write_folder(tmp_path, SMOLLM2, chat_template="{{ nothing of use")
    speech = read_speech(tmp_path, size, form="plain")
    assert speech.chat == PLAIN
    tokenizer = speech.tokenizer
    assert tokenizer.controls.stops == (tokenizer.token_id(IM_END),)
    assert tokenizer.token_id("<|im_start|>") in tokenizer.controls.others
    with pytest.raises(ValueError, match=r"the chat template fails .* use the plain transcript"):
        read_speech(tmp_path, size)


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
def test_all_ends_of_a_reply_are_known(tmp_path: Path, file: str) -> None:
    size = write_folder(tmp_path, SMOLLM2, chat_template=SMOLLM2.text)
    ids = values_of(make_chat(*SMOLLM2.controls))["added_tokens"]
    end = next(each["id"] for each in ids if each["content"] == ENDOFTEXT)
    for value in (end, [end, 10**9, -1, "x", None]):
        (tmp_path / file).write_text(json.dumps({"eos_token_id": value}))
        tokenizer = read_speech(tmp_path, size).tokenizer
        assert {*tokenizer.controls.stops} == {end, tokenizer.token_id(IM_END)}


def test_a_gguf_file_names_one_end_and_others_are_known_by_name(tmp_path: Path) -> None:
    size = write_file(tmp_path / "a.gguf", SMOLLM2, chat_template=SMOLLM2.text)
    tokenizer = read_speech(tmp_path / "a.gguf", size).tokenizer
    expected = {tokenizer.token_id(IM_END), tokenizer.token_id(ENDOFTEXT)}
    assert {*tokenizer.controls.stops} == expected


def test_a_model_may_have_more_rows_than_tokens(tmp_path: Path) -> None:
    size = write_folder(tmp_path, SMOLLM2)
    tokenizer = read_speech(tmp_path, size + 100).tokenizer
    assert tokenizer.vocab_size == size + 100
    assert tokenizer.decode([size + 99]) == ""
    with pytest.raises(ValueError, match=f"has {size} tokens, the model {size - 1}; use the tok"):
        read_speech(tmp_path, size - 1)


def test_what_is_lost_is_said(tmp_path: Path) -> None:
    size = write_folder(tmp_path, LLAMA3)
    assert read_speech(tmp_path, size).tokenizer.losses == ()
    values = json.loads((tmp_path / "tokenizer.json").read_text())
    values["normalizer"] = {"type": "NFC"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    assert read_speech(tmp_path, size).tokenizer.losses == ("its normalizer NFC changes text",)


def test_missing_and_unfit_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no tokenizer\.json; fetch it"):
        read_speech(tmp_path, 300)
    size = write_folder(tmp_path, SMOLLM2)
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json: is no table"):
        read_speech(tmp_path, size)
