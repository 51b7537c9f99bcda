"""Replaying a ledger, with all of it or less, by the same model or another."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from byte_tokenizer import ByteTokenizer
from ledger_trace import trace
from slowwave.memory.ledger import Entry
from slowwave.memory.replay import plan_forgetting, replay, resleep
from slowwave.memory.session import Session
from slowwave.memory.sleep_report import Provenance, Span
from slowwave.memory.talker import Talker
from slowwave.memory.turn import finish, say
from slowwave.models.backbone import HybridLM
from slowwave.runtime.config import ChatFormat, Role
from slowwave.sleep.config import SleepConfig
from slowwave.state import MemoryState

Start = Callable[[], Session]
WINDOW = 12

texts = st.text(alphabet="ab \u00e9", min_size=1, max_size=30)
sources = st.sampled_from(["user", "notes", "mail"])
SLEEPS = {
    "all": SleepConfig(window=WINDOW, passes=3),
    "sliding": SleepConfig(window=WINDOW, passes=2, eviction="sliding", sinks=1),
    "none": SleepConfig(window=WINDOW, eviction="none"),
}


@dataclasses.dataclass(frozen=True)
class Step:
    """One thing to do with a session."""

    kind: str
    text: str
    source: str
    number: int

    def do(self, session: Session) -> None:
        if self.kind == "read":
            session.read(self.text, source=self.source)
        if self.kind == "generate":
            message = "x" + self.text
            session.generate(message, source=self.source, max_new_tokens=self.number)
        if self.kind == "close":
            pieces = session.stream("x" + self.text, source=self.source, max_new_tokens=30)
            list(itertools.islice(pieces, self.number))
            if self.number % 2 and session.status().is_replying and can_sleep(session):
                session.sleep(self.number)
            pieces.close()  # pyright: ignore[reportAttributeAccessIssue]
        if self.kind == "sleep" and session.state.window_fill and can_sleep(session):
            session.sleep(self.number if self.number < 4 else None)


def can_sleep(session: Session) -> bool:
    return session.talker.sleep.eviction != "none"


steps = st.lists(
    st.builds(
        Step,
        kind=st.sampled_from(["read", "generate", "close", "sleep"]),
        text=texts,
        source=sources,
        number=st.integers(1, 20),
    ),
    max_size=6,
)


def tensors(state: MemoryState) -> list[Tensor]:
    return list(state.tensors().values())


def assert_same(actual: MemoryState, expected: MemoryState) -> None:
    assert (actual.counters.tokens_seen, actual.counters.num_sleeps) == (
        expected.counters.tokens_seen,
        expected.counters.num_sleeps,
    )
    for mine, other in zip(tensors(actual), tensors(expected), strict=True):
        assert torch.equal(mine, other)


def begin(start: Start, setting: str) -> Session:
    session = start()
    session.talker = session.talker._replace(sleep=SLEEPS[setting])
    return session


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(setting=st.sampled_from(sorted(SLEEPS)), steps=steps)
def test_a_replay_is_the_same_to_the_bit(start: Start, setting: str, steps: list[Step]) -> None:
    session = begin(start, setting)
    for step in steps:
        step.do(session)
    again = replay(lambda: begin(start, setting), session.entries)
    assert_same(again.state, session.state)
    assert again.entries == session.entries
    assert [r.trigger for r in again.sleeps] == [r.trigger for r in session.sleeps]
    assert [r.changes for r in again.sleeps] == [r.changes for r in session.sleeps]
    # And both go on alike, replies included.
    assert again.generate("more") == session.generate("more")


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps, data=st.data())
def test_forgetting_is_never_having_been_told(
    start: Start, steps: list[Step], data: st.DataObject
) -> None:
    session = start()
    for step in steps:
        step.do(session)
    entries = session.entries
    gone = data.draw(st.sets(st.sampled_from(sorted({e.source for e in entries} or {"none"}))))
    gone &= {entry.source for entry in entries}
    places = data.draw(st.sets(st.integers(0, max(0, len(entries) - 1)), max_size=2))
    places &= set(range(len(entries)))
    plan = plan_forgetting(entries, sources=gone, places=places)
    assert sorted(plan.kept + plan.dropped) == list(range(len(entries)))
    left = replay(start, plan.kept_entries)
    assert not gone & {entry.source for entry in left.entries}
    assert not {id(entries[i]) for i in places} & {id(entry) for entry in left.entries}
    if plan.dropped:
        assert all(entries[i].kind != "reply" for i in plan.kept if i > plan.dropped[0])
        named = {i for i, entry in enumerate(entries) if entry.source in gone} | places
        assert {*plan.carriers} == {*plan.dropped} - named
    else:
        assert_same(left.state, session.state)
    # A session that was only ever given the rest, in the same calls.
    other = start()
    for entry in plan.kept_entries:
        if entry.kind == "told":
            other.read(entry.text, source=entry.source)
        elif entry.kind == "reply":
            other.repeat(entry)
        elif other.state.window_fill:
            other.sleep(entry.passes)
    assert_same(left.state, other.state)
    assert [e.text for e in left.entries] == [e.text for e in other.entries]


# Forgetting.


@pytest.fixture
def lived(start: Start) -> Session:
    """told, told (notes), reply, sleep, told, reply, at places 0 to 5."""
    session = start()
    session.read("Ann lives in Lima.", source="mail")
    session.generate("Where is she?", source="notes")
    session.read("on")
    session.sleep()
    session.generate("And Bob?")
    assert [e.kind for e in session.entries] == [
        "told",
        "told",
        "reply",
        "told",
        "sleep",
        "told",
        "reply",
    ]
    return session


def test_a_plan_shows_what_goes(lived: Session) -> None:
    plan = plan_forgetting(lived.entries, sources=["notes"])
    assert (plan.dropped, plan.kept) == ((1, 2, 6), (0, 3, 4, 5))
    assert plan.kept_entries == [lived.entries[i] for i in (0, 3, 4, 5)]
    assert plan.num_tokens == sum(len(entry.tokens) for entry in plan.kept_entries)
    assert plan_forgetting(lived.entries, places=range(3, 6)).dropped == (3, 4, 5, 6)
    assert plan_forgetting(lived.entries).dropped == ()


def test_replies_can_be_kept_by_name(lived: Session, start: Start) -> None:
    plan = plan_forgetting(lived.entries, sources=["mail"], keep=[6])
    assert plan.dropped == (0, 2)
    left = replay(start, plan.kept_entries)
    assert left.entries == [lived.entries[i] for i in (1, 3, 4, 5, 6)]


def test_replies_before_it_stay(lived: Session) -> None:
    assert plan_forgetting(lived.entries, places=[5]).dropped == (5, 6)
    assert plan_forgetting(lived.entries, sources=["model"]).dropped == (2, 6)


@pytest.mark.parametrize("told_as", ["role", "source"])
def test_lines_of_the_model_that_a_client_sent_go_as_replies_do(start: Start, told_as: str) -> None:
    """A client may send a conversation that it had elsewhere; its assistant may have said it."""
    session, chat = start(), ChatFormat()

    def send(role: Role, text: str, source: str) -> Entry:
        entry = say(session.talker.tokenizer, chat, role, text, source)
        return entry if told_as == "role" else dataclasses.replace(entry, role=None, said="")

    lines = [
        send("assistant", "Hello.", "model"),
        send("user", "The PIN is 1234.", "ann"),
        send("assistant", "I note 1234.", "bot" if told_as == "role" else "model"),
        send("system", "Be kind.", "system"),
        send("user", "Thanks.", "bob"),
    ]
    finish(session.take_turn(lines, max_new_tokens=2))
    plan = plan_forgetting(session.entries, sources=["ann"])
    assert (plan.dropped, plan.carriers) == ((1, 2, 5), (2, 5))
    assert plan_forgetting(session.entries, sources=["ann"], keep=[2]).dropped == (1, 5)
    for place in (0, 1, 3, 4):
        with pytest.raises(ValueError, match=f"keep names place {place}, which is no reply"):
            plan_forgetting(session.entries, sources=["ann", "model"], keep=[place])
    left = replay(start, plan.kept_entries)
    assert [entry.text for entry in left.entries] == [lines[i].text for i in (0, 3, 4)]


def test_a_sleep_with_nothing_left_lapses(start: Start) -> None:
    session = start()
    session.read("Ann", source="mail")
    session.sleep()
    left = replay(start, plan_forgetting(session.entries, sources=["mail"]).kept_entries)
    assert (left.entries, left.sleeps, left.state.counters.tokens_seen) == ([], [], 0)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"sources": ["mial"]}, "nothing is from source 'mial'; there are asked, mail, model"),
        ({"places": [7]}, "place 7 is not in the ledger; use 0 to 6"),
        ({"places": [-1]}, "place -1 is not in the ledger"),
        ({"places": [2], "keep": [9]}, "place 9 is not in the ledger"),
        ({"places": [2], "keep": [2]}, "keep names place 2, which is no reply, or is to be"),
        ({"places": [2], "keep": [3]}, "keep names place 3, which is no reply, or is to be"),
    ],
)
def test_wrong_plans(lived: Session, what: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_forgetting(lived.entries, **what)


def test_plans_take_no_longer_for_naming_a_place_often(lived: Session) -> None:
    class Places(list[int]):
        def __contains__(self, place: object) -> bool:
            raise AssertionError("all of them are gone through for every entry")

    plan = plan_forgetting(lived.entries, places=Places([0] * 100), keep=Places())
    assert plan == plan_forgetting(lived.entries, places=[0])


def test_a_replay_can_begin_anywhere(lived: Session, start: Start) -> None:
    """From a fork made after the third entry, the rest of them."""
    middle = replay(start, lived.entries[:3])
    again = replay(middle.fork, lived.entries[3:])
    assert_same(again.state, lived.state)
    assert again.entries == lived.entries


# Another model.


class PairTokenizer(ByteTokenizer):
    """Two tokens a byte."""

    fingerprint = "halves"

    def encode(self, text: str) -> list[int]:
        return [half for byte in text.encode() for half in divmod(byte, 16)]

    def decode(self, tokens: object) -> str:
        raise NotImplementedError


def test_resleep_moves_memory_to_another_model(lived: Session) -> None:
    sleep = SleepConfig(window=7, passes=3)

    def start() -> Session:
        return Talker(HybridLM(lived.talker.model.config, seed=8), PairTokenizer(), sleep).session()

    moved, expected = resleep(start, lived.entries), start()
    for entry in lived.entries:
        if entry.kind == "told":
            expected.read(entry.text)
        elif entry.kind == "reply":
            for half in PairTokenizer().encode(entry.text):
                expected.repeat(dataclasses.replace(entry, tokens=(half,)))
        elif expected.state.window_fill:
            expected.sleep(entry.passes)
    assert_same(moved.state, expected.state)
    told = [(e.text, e.source, e.time) for e in lived.entries if e.kind != "sleep"]
    assert [(e.text, e.source, e.time) for e in moved.entries if e.kind != "sleep"] == told


# Provenance.


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(setting=st.sampled_from(sorted(SLEEPS)), before=texts, steps=steps)
def test_provenance_is_what_was_slept_on(
    start: Start, setting: str, before: str, steps: list[Step]
) -> None:
    session = begin(start, setting)
    session.read(before)
    session.entries, session.sleeps = [], []  # as a session is that was loaded from a file
    unknown = session.state.window_fill
    for step in steps:
        step.do(session)
    found = trace(session.entries, session.talker.sleep, window_fill=unknown)
    sizes = [sum(span.stop - span.start for span in spans) for spans in found.sleeps]
    if sizes:
        sizes[0] += unknown
    assert sizes == [report.tokens for report in session.sleeps]
    open_tokens = [
        token
        for span in found.window
        for token in session.entries[span.place].tokens[span.start : span.stop]
    ]
    window = session.state.window_tokens[0].tolist()
    assert open_tokens == (window if sizes else window[unknown:])
    spans = [span for spans in (*found.sleeps, found.window) for span in spans]
    assert all(span.start < span.stop for span in spans)
    covered = [(span.place, token) for span in spans for token in range(span.start, span.stop)]
    assert covered == [(p, t) for p, e in enumerate(session.entries) for t in range(len(e.tokens))]


def test_a_sleep_that_was_rejected_closes_no_window() -> None:
    def tell(length: int) -> Entry:
        return Entry(kind="told", time=0, source="user", tokens=(0,) * length)

    asked = Entry(kind="sleep", time=0, source="asked")
    found = trace([tell(3), asked, asked, tell(3)], SleepConfig(window=5), rejected=[1])
    assert found == Provenance([[], [Span(0, 0, 3)]], [Span(3, 0, 3)])
    found = trace([tell(3), asked, tell(3)], SleepConfig(window=5), rejected=[1])
    assert found == Provenance([[], [Span(0, 0, 3), Span(2, 0, 2)]], [Span(2, 2, 3)])


def test_spans_cross_entries_and_windows() -> None:
    def tell(length: int) -> Entry:
        return Entry(kind="told", time=0, source="user", tokens=(0,) * length)

    asked = Entry(kind="sleep", time=0, source="asked")
    found = trace([tell(3), tell(10), asked, tell(2)], SleepConfig(window=5))
    assert found.sleeps == [[Span(0, 0, 3), Span(1, 0, 2)], [Span(1, 2, 7)], [Span(1, 7, 10)]]
    assert found.window == [Span(3, 0, 2)]
