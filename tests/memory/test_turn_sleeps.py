"""Where a model was never trained to be cut anywhere, windows end between turns."""

import dataclasses
from pathlib import Path

import pytest

from byte_tokenizer import ByteTokenizer
from slowwave.memory.replay import replay
from slowwave.memory.session import Session
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker
from slowwave.memory.turn import say
from slowwave.models.backbone import HybridLM
from slowwave.runtime.config import ChatFormat
from slowwave.sleep.config import Compact, SleepConfig
from slowwave.state import CompactKeyValues, KeyValues
from tiny_models import THREE_LAYERS

SLEEP = SleepConfig(
    window=40, passes=2, consolidator=Compact(ratio=0.5, capacity=2.0), at_turns=True
)


@pytest.fixture
def session() -> Session:
    model = HybridLM(THREE_LAYERS, seed=1)
    return Talker(model, ByteTokenizer(), SLEEP, ChatFormat()).session()


def test_a_turn_without_room_is_slept_before(session: Session) -> None:
    session.generate("twenty signs or more", max_new_tokens=4)
    assert session.status().num_sleeps == 0
    session.generate("and twelve..", max_new_tokens=4)
    (report,) = session.sleeps
    assert report.trigger == "turn"
    assert report.tokens < SLEEP.window
    assert [entry.kind for entry in session.entries].count("sleep") == 1
    places = [i for i, entry in enumerate(session.entries) if entry.kind == "sleep"]
    assert session.entries[places[0] + 1].said == "and twelve.."


def test_a_window_that_is_hardly_filled_is_not(session: Session) -> None:
    session.generate("hi", max_new_tokens=1)
    session.generate("a line that takes more room than there is", max_new_tokens=1)
    assert [report.trigger for report in session.sleeps] == ["full"]


def test_text_that_is_no_turn_fills_windows(session: Session) -> None:
    session.read("x" * 30)
    session.read("y" * 30)
    assert [report.trigger for report in session.sleeps] == ["full"]


def test_without_the_setting_windows_are_filled() -> None:
    sleep = dataclasses.replace(SLEEP, at_turns=False)
    model = HybridLM(THREE_LAYERS, seed=1)
    session = Talker(model, ByteTokenizer(), sleep, ChatFormat()).session()
    for _ in range(3):
        session.generate("twenty signs or more", max_new_tokens=4)
    assert {report.trigger for report in session.sleeps} == {"full"}


def test_a_replay_sleeps_where_the_session_did(session: Session) -> None:
    for line in ("twenty signs or more", "and twelve..", "once again"):
        session.generate(line, max_new_tokens=4)
    again = replay(lambda: Session(session.talker), session.entries)
    assert session.sleeps
    for mine, theirs in zip(
        again.state.tensors().values(), session.state.tensors().values(), strict=True
    ):
        assert mine.equal(theirs)


def test_a_system_prompt_stays_outside_the_window_for_ever(session: Session) -> None:
    talker = session.talker
    assert talker.chat is not None
    session.repeat(say(talker.tokenizer, talker.chat, "system", "be kind", "user"))
    pinned = len("# be kind\n")
    assert session.status().window_fill == 0
    before = [kept.keys[:, :pinned] for kept in list_compact(session)]
    for _ in range(12):
        session.generate("twenty signs or more", max_new_tokens=4)
    assert len(session.sleeps) > 5
    for head, after in zip(before, list_compact(session), strict=True):
        assert after.keys[:, :pinned].equal(head)
    assert replay(lambda: Session(talker), session.entries).state.nbytes == session.state.nbytes


def test_a_later_one_is_a_message_like_any_other(session: Session) -> None:
    talker = session.talker
    assert talker.chat is not None
    session.generate("hi", max_new_tokens=1)
    filled = session.status().window_fill
    session.repeat(say(talker.tokenizer, talker.chat, "system", "be kind", "user"))
    assert session.status().window_fill > filled


def test_a_store_keeps_what_was_pinned(session: Session, tmp_path: Path) -> None:
    talker = session.talker
    assert talker.chat is not None
    told = say(talker.tokenizer, talker.chat, "system", "be kind", "user")
    with Store(tmp_path) as store:
        with store.open("ann", talker, create=True) as stored:
            stored.repeat(told)
            for _ in range(4):
                stored.generate("twenty signs or more", max_new_tokens=4)
        slept = [each.report.trigger for each in store.sleeps("ann")]
        assert slept[:2] == ["system", "turn"]
        with store.open("ann", talker) as again:
            assert again.status().num_sleeps == len(slept)
            again.generate("twenty signs or more", max_new_tokens=4)
            replayed = replay(lambda: Session(talker), store.entries("ann"))
            for mine, theirs in zip(
                replayed.state.tensors().values(), again.state.tensors().values(), strict=True
            ):
                assert mine.equal(theirs)
        store.export("ann", tmp_path / "ann.memory")
        assert store.import_session(tmp_path / "ann.memory", "ben").num_sleeps == len(slept) + 1


def list_compact(session: Session) -> list[CompactKeyValues]:
    """What attention layers have kept."""
    layers = session.state.layers
    found = [layer.compact for layer in layers if isinstance(layer, KeyValues)]
    return [each for each in found if each is not None]
