"""Tokenizers: any text comes back, token by token too, and files that are not exact are refused."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from slowwave.storage.tokenizer import (
    ByteTokenizer,
    FileTokenizer,
    TextStream,
    Tokenizer,
    load_tokenizer,
)

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "recipes" / "talk-tokenizer.json"
BYTES, BPE = load_tokenizer(None), load_tokenizer(SHIPPED)
BOTH = pytest.mark.parametrize("tokenizer", [BYTES, BPE], ids=["bytes", "file"])


@BOTH
@given(text=st.text())
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert all(0 <= token < tokenizer.vocab_size for token in tokens)


@BOTH
@given(data=st.data())
def test_a_stream_says_what_decoding_all_at_once_does(
    tokenizer: Tokenizer, data: st.DataObject
) -> None:
    """Any tokens, most of them no UTF-8; nothing that was said is ever taken back."""
    tokens = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1)))
    stream = TextStream(tokenizer)
    said = [stream.push(token) for token in tokens]
    assert "".join(said) + stream.finish() == tokenizer.decode(tokens)
    assert stream.finish() == ""


@example([0xF0, 0x9F, 0x98] * 5)
@given(st.lists(st.integers(0, 255), min_size=5, max_size=40))
def test_no_bytes_hold_a_stream_up(tokens: list[int]) -> None:
    """A character has four bytes at most, so all but the last three are certain."""
    stream, said = TextStream(BYTES), ""
    for place, token in enumerate(tokens):
        said += stream.push(token)
        assert len(said) >= len(BYTES.decode(tokens[: max(0, place - 2)]))
        assert BYTES.decode(tokens[: place + 1]).startswith(said)


@BOTH
@given(text=st.text(st.characters(blacklist_characters="\ufffd", blacklist_categories=["Cs"])))
def test_a_stream_speaks_in_whole_characters_as_soon_as_it_can(
    tokenizer: Tokenizer, text: str
) -> None:
    stream, read, said = TextStream(tokenizer), b"", ""
    for token in tokenizer.encode(text):
        piece = stream.push(token)
        assert "\ufffd" not in piece
        said += piece
        read += _bytes_of(tokenizer, token)
        assert said == read.decode("utf-8", errors="ignore")
    assert said == text


def _bytes_of(tokenizer: Tokenizer, token: int) -> bytes:
    """Of bytes the token; of the file by the table of its alphabet, as published with GPT-2."""
    if tokenizer is BYTES:
        return bytes([token])
    entries = {
        index: entry for entry, index in json.loads(SHIPPED.read_text())["model"]["vocab"].items()
    }
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    table |= {chr(256 + place): byte for place, byte in enumerate(others)}
    return bytes(table[sign] for sign in entries[token])


@BOTH
@pytest.mark.parametrize("place", [-1, 0, 1, 2**40])
def test_ids_out_of_range_are_refused(tokenizer: Tokenizer, place: int) -> None:
    wrong, last = place + (tokenizer.vocab_size if 0 <= place < 2 else 0), tokenizer.vocab_size - 1
    with pytest.raises(
        ValueError, match=rf"^token id {wrong} is out of range; use ids from 0 to {last}, those of"
    ):
        tokenizer.decode([0, last, wrong])


@BOTH
def test_half_a_surrogate_pair_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"^the text is no text: it has half of a surrogate pair;"):
        tokenizer.encode("a\ud83d")


def test_the_shipped_fingerprint_stays() -> None:
    """Memory files and catalogues name it."""
    fingerprint = "49e5df29fdf4c62006d2ddd07bc1eef8a8f828fd9dec569e42ea0190ccd84e74"
    for path in (SHIPPED, ROOT / "checkpoints" / "talk" / "tokenizer.json"):
        assert load_tokenizer(path).fingerprint == fingerprint


def test_fingerprints_tell_tokenizers_apart(tmp_path: Path) -> None:
    assert isinstance(BPE, FileTokenizer)
    copy = tmp_path / "tokenizer.json"
    copy.write_bytes(BPE.content)
    assert load_tokenizer(copy).fingerprint == BPE.fingerprint
    copy.write_text(json.dumps(json.loads(BPE.content)))
    assert len({BYTES.fingerprint, BPE.fingerprint, load_tokenizer(copy).fingerprint}) == 3
    assert ByteTokenizer().fingerprint == BYTES.fingerprint


def test_what_changes_text_or_cannot_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tokenizer.json"
    values = json.loads(SHIPPED.read_text())
    path.write_text(json.dumps({**values, "normalizer": {"type": "Lowercase"}}))
    with pytest.raises(ValueError, match=r"tokenizer\.json: decoding does not give back the text"):
        load_tokenizer(path)
    path.write_text("{}")
    for name in ("tokenizer.json", "missing.json"):
        with pytest.raises(ValueError, match=rf"{name}: cannot be read as a tokenizer \("):
            load_tokenizer(tmp_path / name)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(
        ValueError, match=r"json: the tokenizers package, .*; install it in a check"
    ):
        load_tokenizer(SHIPPED)


def test_settings_that_cut_or_pad_do_not_reach_us(tmp_path: Path) -> None:
    values = json.loads(SHIPPED.read_text())
    values["truncation"] = {
        "direction": "Right",
        "max_length": 3,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(values))
    text = "> Anna lives in Paris.\n" * 3
    assert load_tokenizer(path).encode(text) == BPE.encode(text)


def test_the_shipped_file_is_what_the_example_makes() -> None:
    example = runpy.run_path(str(ROOT / "examples" / "talk_tokenizer.py"))
    assert example["train_tokenizer"]() + "\n" == SHIPPED.read_text(encoding="utf-8")
    assert BPE.vocab_size == 1280


def test_two_digits_are_one_token() -> None:
    for number in (*range(10, 100), "00", "07", 3):
        assert len(BPE.encode(f"{number}")) == len(BPE.encode(f" {number}")) == 1
        assert len(BPE.encode(f" {number}42.\n")) <= 3


def test_names_are_the_same_tokens_wherever_they_stand() -> None:
    for name in ("Anna", "Tavolin", "Rome", "O", "Zoe"):
        tokens = BPE.encode(name)
        for text in (f"{name} is", f"> {name}'s", f"in {name}.\n", f"No, {name}", f"a {name}"):
            found = BPE.encode(text)
            assert any(found[i : i + len(tokens)] == tokens for i in range(len(found))), text
