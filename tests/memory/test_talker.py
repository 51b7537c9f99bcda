"""A talker begins sessions, keywords draw replies, and what stands where can be printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from byte_tokenizer import ByteTokenizer
from slowwave.memory.config import GateConfig
from slowwave.memory.sleep_report import SleepReport
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker, load
from slowwave.models.backbone import HybridLM
from slowwave.runtime import model_folder
from slowwave.runtime.config import ChatFormat, Sampling
from slowwave.runtime.model_folder import TalkerConfig
from slowwave.storage import tokenizer
from tiny_models import THREE_LAYERS

DRAWN = Sampling(temperature=1.5, top_k=40, top_p=0.9, seed=7)


def test_a_folder_makes_a_talker(talker: Talker, tmp_path: Path) -> None:
    assert isinstance(talker.chat, ChatFormat)
    config = TalkerConfig(model=talker.model.config, sleep=talker.sleep, chat=talker.chat)
    model_folder.save(tmp_path, talker.model, tokenizer.ByteTokenizer(), config)
    loaded = load(tmp_path)
    said = loaded.session(sampling=DRAWN).generate("Where is Ann?", max_new_tokens=9)
    assert said == talker.session(sampling=DRAWN).generate("Where is Ann?", max_new_tokens=9)
    with pytest.raises(ValueError, match=r"^device is 'gpu', which torch cannot use here; use"):
        load(tmp_path, device="gpu")


def test_a_session_begins_as_it_is_told(talker: Talker) -> None:
    reports: list[SleepReport] = []
    gate = GateConfig(held_out=("Ann lives in Lima.",))
    session = talker.session(sampling=DRAWN, on_sleep=reports.append, gate=gate)
    assert (session.sampling, session.gate, session.talker.chat) == (DRAWN, gate, ChatFormat())
    assert session.talker == talker
    session.read("a" * session.talker.sleep.window)
    assert [report.verdict is not None for report in reports] == [True]


def test_a_session_goes_on_from_a_file(talker: Talker, tmp_path: Path) -> None:
    session = talker.session()
    session.generate("My cat is called Milo.", max_new_tokens=5)
    session.save(tmp_path / "milo")
    later = talker.session(str(tmp_path / "milo"))
    assert later.generate("Who?", max_new_tokens=9) == session.generate("Who?", max_new_tokens=9)
    other = talker._replace(model=HybridLM(THREE_LAYERS, seed=2))
    with pytest.raises(ValueError, match="milo: "):
        other.session(tmp_path / "milo")
    with pytest.raises(ValueError, match="none: no such file"):
        talker.session(tmp_path / "none")


@pytest.mark.parametrize(
    "keywords", [{"temperature": 0.3}, {"top_k": 3}, {"top_p": 0.1}, {"seed": 8}, {}]
)
def test_keywords_change_how_a_reply_is_drawn(talker: Talker, keywords: dict[str, Any]) -> None:
    def say(**options: Any) -> str:
        session = talker.session(sampling=DRAWN)
        streamed = "".join(session.fork().stream("Where is Ann?", max_new_tokens=40, **options))
        assert session.generate("Where is Ann?", max_new_tokens=40, **options) == streamed
        return streamed

    fields = {"temperature": 1.5, "top_k": 40, "top_p": 0.9, "seed": 7} | keywords
    assert say(**keywords) == say(sampling=Sampling(**fields))
    assert say(**keywords) == say(sampling=Sampling(), **fields)
    assert (say(**keywords) == say()) == (not keywords)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"temperature": -1.0}, r"^temperature is -1\.0; use 0"),
        ({"top_k": 2.5}, r"^top_k: .*valid integer.* got 2\.5; correct the value"),
        ({"top_p": 0.0}, r"^top_p is 0\.0; use a probability"),
        ({"seed": "a"}, r"^seed: .*valid integer.* got 'a'; correct the value"),
    ],
)
def test_unfit_keywords_are_refused(talker: Talker, keywords: Any, message: str) -> None:
    session = talker.session()
    with pytest.raises(ValueError, match=message):
        session.generate("Where is Ann?", **keywords)
    assert session.state.counters.tokens_seen == 0


def test_what_is_printed_says_where_it_stands(talker: Talker, tmp_path: Path) -> None:
    count = talker.model.num_parameters
    assert repr(talker) == (
        f"<Talker parameters={count} layers=attn-gdn-gdn vocab_size=256 window=12 passes=2 "
        "chat=True>"
    )
    session = talker.session()
    session.read("abcdefghijklmno")
    stands = f"tokens_seen=15 num_sleeps=1 window_fill=3/12 nbytes={session.state.nbytes}"
    assert repr(session) == f"<Session {stands}>"
    with Store(tmp_path) as store, store.open("ann", talker, create=True) as stored:
        assert repr(store) == f"<Store {str(tmp_path)!r}>"
        stored.read("abcdefghijklmno")
        assert repr(stored) == f"<StoredSession 'ann' {stands}>"
        pieces = stored.stream("x", sampling=DRAWN)
        next(pieces)
        assert repr(stored).endswith(" is_replying>")
    assert repr(stored).endswith(" is_closed>")


def test_a_talker_is_still_four_things(talker: Talker) -> None:
    model, read, sleep, chat = talker
    assert (model, sleep, chat) == (talker.model, talker.sleep, talker.chat)
    assert isinstance(read, ByteTokenizer)
