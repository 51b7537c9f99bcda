"""Tokenizers that change text: the ledger has what the tokens say, and what was given."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers

from slowwave.memory.replay import resleep
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker
from slowwave.memory.turn import cut_text, finish, say
from slowwave.models.backbone import HybridLM
from slowwave.runtime.config import ChatFormat
from slowwave.serving.history import LastTurn, repeats_text
from slowwave.sleep.config import SleepConfig
from slowwave.storage.tokenizer import FileTokenizer
from tiny_models import THREE_LAYERS
from tokenizer_maker import change, make

TEXT = "cafe\u0301 \u4f60"


def composed() -> tokenizers.Tokenizer:
    """Brings accents and letters together."""
    return change(make(), normalizer=normalizers.NFC())


def pieces() -> tokenizers.Tokenizer:
    """A sign for spaces, and bytes for what is no token; a space comes in front."""
    signs = {sign: 256 + place for place, sign in enumerate("\u2581abcefHiloTk>#:")}
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)} | signs
    made = tokenizers.Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    made.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return made


@pytest.fixture(params=[composed, pieces])
def talker(request: pytest.FixtureRequest) -> Talker:
    content = request.param().to_str().encode()
    tokenizer = FileTokenizer("made", exact=False, content=content)
    config = dataclasses.replace(THREE_LAYERS, vocab_size=tokenizer.vocab_size)
    return Talker(HybridLM(config), tokenizer, SleepConfig(window=24, passes=2), ChatFormat())


def test_they_are_refused_where_text_must_stay(talker: Talker) -> None:
    assert isinstance(talker.tokenizer, FileTokenizer)
    assert talker.tokenizer.losses
    with pytest.raises(ValueError, match="decoding does not give back the text"):
        FileTokenizer("made", content=talker.tokenizer.content)


def test_a_ledger_has_what_was_read_and_what_was_given(tmp_path: Path, talker: Talker) -> None:
    tokenizer = talker.tokenizer
    assert tokenizer.decode(tokenizer.encode(TEXT)) != TEXT
    with Store(tmp_path / "a") as store:
        with store.open("ann", talker, create=True) as session:
            session.read(TEXT, source="notes")
            session.read("ok", source="notes")
            session.generate(TEXT, max_new_tokens=8)
        with store.open("ann", talker) as session:  # which checks tokens against their text
            plain, same, told, reply = session.ledger()
            session.read("on")
        store.export("ann", tmp_path / "file")
    for entry in (plain, same, told, reply):
        assert tokenizer.decode(entry.tokens) == entry.text
    assert (plain.given, plain.role) == (TEXT, None)
    assert same.given == "ok"
    assert (told.said, told.role) == (TEXT, "user")
    with Store(tmp_path / "b") as store:
        store.import_session(tmp_path / "file")
        with store.open("ann", talker) as session:
            assert session.ledger()[0] == plain


def test_a_repeated_text_is_recognised(talker: Talker) -> None:
    session = talker._replace(chat=None).session()
    session.generate(TEXT, max_new_tokens=2)
    turn = LastTurn.find(0, session.entries)
    assert turn is not None
    assert repeats_text(TEXT, turn, is_retry=True)


def test_a_memory_that_moves_is_told_what_was_given(talker: Talker) -> None:
    session = talker.session()
    session.read(TEXT)
    finish(
        session.take_turn(
            [say(talker.tokenizer, ChatFormat(), "user", TEXT, "ann")], max_new_tokens=0
        )
    )
    exact = FileTokenizer("made", content=make().to_str().encode())
    config = dataclasses.replace(THREE_LAYERS, vocab_size=exact.vocab_size)
    other = Talker(HybridLM(config), exact, talker.sleep, ChatFormat())
    moved = resleep(other.session, session.entries)
    assert exact.decode(moved.entries[0].tokens) == TEXT
    assert moved.entries[0].text == TEXT
    back = resleep(talker.session, moved.entries)
    assert dataclasses.replace(back.entries[0], said=TEXT) == session.entries[0]


def test_a_long_text_is_read_in_pieces(talker: Talker) -> None:
    text = "ab Hi, \u4f60! " * 3000
    tokens = [token for piece in talker.tokenizer.encode_in_pieces(text) for token in piece]
    decoded = talker.tokenizer.decode(tokens)
    assert decoded.replace(" ", "") == text.replace(" ", "")
    assert len(cut_text(text)) > 1
