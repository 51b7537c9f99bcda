"""A probe shows what was said before and after a sleep, and changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from slowwave.memory.config import GateConfig, Question
from slowwave.memory.questions import (
    ProbeReply,
    ProbeResult,
    probe_state,
)
from slowwave.memory.session import Session
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker
from slowwave.runtime.config import Sampling
from slowwave.sleep.config import SleepConfig
from slowwave.state import MemoryState

QUESTIONS = [Question(question="Where?"), Question(question="Who is Bob?")]


def probe_session(session: Session, questions: list[Question], **options: Any) -> list[ProbeResult]:
    return probe_state(session.talker, session.fork().state, questions, **options)


def probe_point(
    store: Store, point: str, talker: Talker, questions: list[Question], **options: Any
) -> list[ProbeResult]:
    return probe_state(talker, store.state(point, talker), questions, **options)


def say(session: Session, question: str) -> str:
    return session.fork().generate(question, sampling=Sampling(), max_new_tokens=7)


def test_a_probe_is_what_a_session_would_say(session: Session) -> None:
    session.read("Ann lives in Lima")
    before, entries = session.state, [*session.entries]
    found = probe_session(session, QUESTIONS, passes=[1, 2, 5], max_new_tokens=7)
    assert (session.state, session.entries) == (before, entries)
    expected = list[ProbeResult]()
    for question in QUESTIONS:
        first, after = say(session, question.question), list[ProbeReply]()
        for passes in (1, 2, 5):
            slept = session.fork()
            slept.sleep(passes)
            text = say(slept, question.question)
            after.append(ProbeReply(passes=passes, text=text, is_right=None, is_same=text == first))
        asked = ProbeResult(question=question, before=first, was_right=None, after=tuple(after))
        expected.append(asked)
    assert found == expected
    assert {reply.is_same for asked in found for reply in asked.after} == {True, False}
    assert [a.after[1:2] for a in found] == [
        a.after for a in probe_session(session, QUESTIONS, max_new_tokens=7)
    ]


def test_replies_are_held_against_the_answer(session: Session) -> None:
    session.read("Ann lives in Lima")
    asked = next(
        asked
        for text in ["Where?", "Who?", "What?", "When?", "Why?", "How?"]
        for asked in probe_session(session, [Question(question=text)], max_new_tokens=7)
        if asked.before.strip() not in asked.after[0].text
        and asked.after[0].text.strip() not in asked.before
    )
    for text, was_right in ((asked.before, True), (asked.after[0].text, False)):
        question = Question(question=asked.question.question, answer=text)
        (found,) = probe_session(session, [question], max_new_tokens=7)
        assert found.was_right == was_right
        assert found.after[0].is_right == (not was_right)


def test_a_probe_asks_no_gate(session: Session) -> None:
    session.read("Ann lives in Lima")
    free = probe_session(session, QUESTIONS, max_new_tokens=7)
    session.gate = GateConfig(held_out=("text",), max_median_rise=-9)
    assert probe_session(session, QUESTIONS, max_new_tokens=7) == free


def test_points_of_a_store_are_probed_whoever_has_them_open(tmp_path: Path, talker: Talker) -> None:
    with Store(tmp_path) as store, store.open("ann", talker, create=True) as session:
        session.read("Ann lives in Lima")
        session.snapshot("monday")
        expected = probe_session(session, QUESTIONS, max_new_tokens=7)
        session.read("On.")
        assert probe_point(store, "ann@monday", talker, QUESTIONS, max_new_tokens=7) == expected
        now = probe_session(session, QUESTIONS, max_new_tokens=7)
        assert probe_point(store, "ann", talker, QUESTIONS, max_new_tokens=7) == now != expected
        assert len(session.ledger()) == 2
        with pytest.raises(ValueError, match="no snapshot 'friday'; there are monday"):
            probe_point(store, "ann@friday", talker, QUESTIONS)
        other = talker._replace(sleep=SleepConfig(window=5))
        with pytest.raises(ValueError, match="session 'ann' was read with another sleep"):
            probe_point(store, "ann", other, QUESTIONS)


def test_a_state_is_read_without_the_lock(tmp_path: Path, talker: Talker) -> None:
    with Store(tmp_path) as store, store.open("ann", talker, create=True) as session:
        assert store.state("ann", talker).tokens_seen == 0
        session.read("Ann lives in Lima")
        pairs = zip(tensors(store.state("ann", talker)), tensors(session.state), strict=True)
        assert all(torch.equal(mine, theirs) for mine, theirs in pairs)


def tensors(state: MemoryState) -> list[torch.Tensor]:
    return list(state.tensors().values())


def test_what_cannot_be_probed(session: Session, talker: Talker) -> None:
    with pytest.raises(ValueError, match="the window is empty, there is nothing to sleep on"):
        probe_session(session, QUESTIONS)
    session.read("Ann")
    with pytest.raises(ValueError, match="passes is 0; use 1"):
        probe_session(session, QUESTIONS, passes=[0])
    with pytest.raises(ValueError, match="max_new_tokens is 0; use 1 or more"):
        probe_session(session, QUESTIONS, max_new_tokens=0)
    never = talker._replace(sleep=SleepConfig(window=12, eviction="none"))
    with pytest.raises(ValueError, match=r"sleep\.eviction is none, which never sleeps"):
        probe_state(never, session.state, QUESTIONS)
    pieces = session.stream("Hello")
    next(pieces)
    with pytest.raises(ValueError, match="a reply is open; exhaust or close what stream"):
        probe_session(session, QUESTIONS)
