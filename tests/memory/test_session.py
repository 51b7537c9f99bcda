"""A session reads, answers and sleeps; what it records is what happened."""

from __future__ import annotations

import gc
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from byte_tokenizer import ByteTokenizer
from slowwave.memory.ledger import Entry, EntryKind
from slowwave.memory.session import Session
from slowwave.memory.sleep_report import SleepReport
from slowwave.memory.talker import Talker
from slowwave.memory.turn import Progress, say, tell
from slowwave.models.backbone import HybridLM
from slowwave.models.config import ModelConfig
from slowwave.runtime.config import ChatFormat, Sampling
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.consolidate import consolidate
from slowwave.sleep.stream import read_stream
from slowwave.state import MemoryState

Start = Callable[[], Session]
WINDOW = 12


def tensors(state: MemoryState) -> list[Tensor]:
    return list(state.tensors().values())


def assert_same(actual: MemoryState, expected: MemoryState) -> None:
    assert (actual.counters.tokens_seen, actual.counters.num_sleeps) == (
        expected.counters.tokens_seen,
        expected.counters.num_sleeps,
    )
    for mine, other in zip(tensors(actual), tensors(expected), strict=True):
        assert torch.equal(mine, other)


def ids(*tokens: int) -> Tensor:
    return torch.tensor([tokens])


# Reading.


def test_reading_is_reading_a_stream(session: Session) -> None:
    text = "Ann lives in Lima. Bob lives in Rome."
    session.read(text, source="notes")
    with torch.inference_mode():
        _, state = read_stream(
            session.talker.model,
            ids(*text.encode()),
            session.talker.model.initial_state(1),
            session.talker.sleep,
        )
    assert_same(session.state, state)
    (entry,) = session.entries
    assert (entry.kind, entry.source, entry.text) == ("told", "notes", text)
    assert entry.tokens == tuple(text.encode())
    assert entry.calls == [entry.tokens]


def test_a_long_text_needs_no_more_memory_than_a_window(talker: Talker) -> None:
    """What was read before the open window is not kept while the rest is read."""
    kept: dict[int, int] = {}

    def count(report: SleepReport) -> None:
        if report.number in (5, 30):
            kept[report.number] = sum(type(o) is Tensor for o in gc.get_objects())

    talker.session(on_sleep=count).read("x" * 30 * WINDOW)
    assert kept[30] <= kept[5]


def test_nothing_to_read(session: Session) -> None:
    before = session.state
    with pytest.raises(ValueError, match="the text is empty; give some text to read"):
        session.read("")
    with pytest.raises(ValueError, match="the message is empty; say something"):
        session.generate(" \n")
    assert (session.state, session.entries) == (before, [])


def test_the_tokenizer_must_be_of_the_model() -> None:
    model = HybridLM(ModelConfig(vocab_size=7))
    with pytest.raises(ValueError, match="tokenizer has 256 tokens, the model 7; use the"):
        Talker(model, ByteTokenizer(), SleepConfig()).session()


# Replies.


def test_a_reply_is_drawn_token_by_token(session: Session) -> None:
    """Against the same by hand, with sleeps in the middle of both lines."""
    session.sampling = Sampling()
    said = session.generate("Where does Ann live?", max_new_tokens=30)
    model, sleep, state = (
        session.talker.model,
        session.talker.sleep,
        session.talker.model.initial_state(1),
    )
    drawn: list[int] = []
    with torch.inference_mode():
        prompt = ids(*b"> Where does Ann live?\n")
        hidden, state = read_stream(model, prompt, state, sleep)
        while len(drawn) < 30 and 10 not in drawn:
            drawn.append(int(model.logits(hidden[0, -1]).argmax()))
            hidden, state = read_stream(model, ids(drawn[-1]), state, sleep)
        if 10 not in drawn:  # the line is ended for it
            drawn.append(10)
            _, state = read_stream(model, ids(10), state, sleep)
    assert_same(session.state, state)
    told, reply = session.entries
    assert (told.text, told.source) == ("> Where does Ann live?\n", "user")
    assert (reply.kind, reply.source, reply.tokens) == ("reply", "model", tuple(drawn))
    assert reply.text == bytes(drawn).decode(errors="replace")
    assert said == reply.text[:-1]
    assert reply.calls == [(token,) for token in drawn]


def test_pieces_are_the_reply(start: Start) -> None:
    pieces = list(start().stream("Hello", max_new_tokens=25))
    assert all(pieces)
    assert len(pieces) > 5
    assert "".join(pieces) == start().generate("Hello", max_new_tokens=25)


def test_without_a_chat_text_goes_on(session: Session) -> None:
    session.talker = session.talker._replace(chat=None)
    said = session.generate("Hello", max_new_tokens=9)
    told, reply = session.entries
    assert (told.text, reply.text, len(reply.tokens)) == ("Hello", said, 9)


def test_a_reply_stops(session: Session) -> None:
    whole = session.fork().generate("Hello", max_new_tokens=25)
    stop = whole[4:6]
    assert session.fork().generate("Hello", max_new_tokens=25, stop=stop) == whole[:4]
    assert session.generate("Hello", max_new_tokens=25, stop=[stop, "never"]) == whole[:4]
    assert session.entries[-1].text == whole[:6] + "\n"


def test_a_closed_reply_keeps_what_was_said(session: Session) -> None:
    pieces = session.stream("Hello", max_new_tokens=25)
    said = "".join(itertools.islice(pieces, 6))
    assert session.status().is_replying
    pieces.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert not session.status().is_replying
    reply = session.entries[-1]
    assert reply.text.startswith(said)
    assert reply.text.endswith("\n")
    assert session.state.counters.tokens_seen == len("> Hello\n") + len(reply.tokens)


def test_a_reply_that_nobody_holds_is_closed(session: Session) -> None:
    next(session.stream("Hello"))
    gc.collect()
    assert not session.status().is_replying
    assert session.entries[-1].kind == "reply"


def test_an_interpreter_may_end_with_a_reply_open() -> None:
    program = """
from slowwave.memory.talker import Talker
from slowwave.models.config import ModelConfig
from slowwave.models.backbone import HybridLM
from slowwave.sleep.config import SleepConfig
from byte_tokenizer import ByteTokenizer

talker = Talker(HybridLM(ModelConfig(vocab_size=256)), ByteTokenizer(), SleepConfig(window=8))
session = talker.session()
pieces = session.stream("Hello")
print(bool(next(pieces)))
"""
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), *sys.path]))
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "True\n", "")


def test_a_reply_that_was_never_begun_is_no_turn(session: Session) -> None:
    before = session.state
    session.stream("Hello")
    assert (session.state, session.entries) == (before, [])


def test_one_turn_at_a_time(session: Session, tmp_path: Path) -> None:
    session.save(tmp_path / "memory")
    pieces = session.stream("Hello")
    next(pieces)
    before = session.state
    for call in (
        lambda: session.read("more"),
        lambda: session.generate("more"),
        session.fork,
        lambda: session.load(tmp_path / "memory"),
    ):
        with pytest.raises(ValueError, match="a reply is open; exhaust or close what stream"):
            call()
    assert session.state is before


def test_draws_come_from_seed_and_place(start: Start) -> None:
    torch.manual_seed(0)
    first = start().generate("Hello")
    torch.manual_seed(1)
    session = start()
    assert session.generate("Hello") == first
    assert session.generate("Hello") != first
    other = Sampling(temperature=1.0, top_k=40, seed=1)
    assert start().generate("Hello", sampling=other) != first


@pytest.mark.parametrize(
    ("options", "message"),
    [({"max_new_tokens": 0}, "max_new_tokens is 0; use 1 or more"), ({"stop": [""]}, "stop holds")],
)
def test_wrong_options(session: Session, options: dict, message: str) -> None:
    before = session.state
    with pytest.raises(ValueError, match=message):
        session.generate("Hello", **options)
    assert (session.state, session.entries) == (before, [])
    session.read("go on")


def test_inference_mode_is_not_left_on(session: Session) -> None:
    pieces = session.stream("Hello")
    next(pieces)
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()


# Sleep.


def test_every_sleep_is_reported(talker: Talker) -> None:
    seen: list[SleepReport] = []
    session = talker.session(on_sleep=seen.append)
    session.read("x" * (2 * WINDOW + 5))
    before = session.state
    report = session.sleep(passes=4)
    assert report is not None
    assert session.sleeps == seen
    assert [r.trigger for r in seen] == ["full", "full", "asked"]
    assert [r.tokens for r in seen] == [WINDOW, WINDOW, 5]
    assert [r.passes for r in seen] == [2, 2, 4]
    assert [r.number for r in seen] == [1, 2, 3]
    with torch.inference_mode():
        slept = consolidate(session.talker.model, before, passes=4, sleep=session.talker.sleep)
    assert_same(session.state, slept)
    assert (report.bytes_before, report.bytes_after) == (before.nbytes, slept.nbytes)
    assert report.bytes_after < report.bytes_before
    assert report.milliseconds > 0
    expected = [
        ((new - old).square().sum() / old.square().sum()).sqrt().item()
        for old, new in zip(before.fast_weights, slept.fast_weights, strict=True)
    ]
    assert report.changes == pytest.approx(expected, rel=1e-5)
    assert min(report.changes) > 1e-3


def test_plain_eviction_changes_no_fast_weights(session: Session) -> None:
    session.read("abc")
    report = session.sleep(passes=1)
    assert report is not None
    assert report.changes == (0, 0)


def test_a_sleep_takes_the_passes_of_the_settings(session: Session) -> None:
    session.read("abc")
    report = session.sleep(trigger="idle")
    assert report is not None
    assert (report.passes, report.trigger) == (2, "idle")
    entry = session.entries[-1]
    assert (entry.kind, entry.source, entry.passes, entry.calls) == ("sleep", "idle", None, [])


def test_a_sleep_waits_for_the_end_of_the_turn(session: Session) -> None:
    pieces = session.stream("Hello", max_new_tokens=14)
    next(pieces)
    assert session.sleep() is None
    assert session.sleep(passes=3) is None
    assert all(report.trigger == "full" for report in session.sleeps)
    list(pieces)
    assert [entry.kind for entry in session.entries] == ["told", "reply", "sleep"]
    assert session.state.window_fill == 0
    assert (session.sleeps[-1].trigger, session.sleeps[-1].passes) == ("asked", 3)


def test_a_sleep_lapses_if_the_turn_ends_with_one(session: Session) -> None:
    session.talker = session.talker._replace(chat=None)
    pieces = session.stream("Hello", max_new_tokens=WINDOW - 5)
    next(pieces)
    session.sleep()
    list(pieces)
    assert [entry.kind for entry in session.entries] == ["told", "reply"]
    assert [report.trigger for report in session.sleeps] == ["full"]


def test_nothing_to_sleep_on(session: Session) -> None:
    with pytest.raises(ValueError, match="the window is empty, there is nothing to sleep on"):
        session.sleep()
    with pytest.raises(ValueError, match="passes is 0; use 1"):
        session.sleep(passes=0)
    assert (session.entries, session.sleeps) == ([], [])


def test_a_session_that_never_evicts_does_not_sleep(session: Session) -> None:
    session.talker = session.talker._replace(sleep=SleepConfig(window=WINDOW, eviction="none"))
    session.read("x" * 3 * WINDOW)
    assert (session.sleeps, session.state.window_fill) == ([], 3 * WINDOW)
    pieces = session.stream("Hello", max_new_tokens=3)
    next(pieces)
    with pytest.raises(ValueError, match=r"sleep\.eviction is none, which never sleeps"):
        session.sleep()
    list(pieces)


def test_the_steps_of_a_turn_tell_of_its_sleeps(session: Session) -> None:
    told = tell(session.talker.tokenizer, "x" * (2 * WINDOW + 5))
    events = [*session.take_turn([told], max_new_tokens=WINDOW)]
    assert [event for event in events if isinstance(event, SleepReport)] == session.sleeps
    assert len(session.sleeps) == 3
    for last, event in itertools.pairwise(events):
        assert not isinstance(event, SleepReport) or last == Progress("sleep")
    assert isinstance(events[-1], Progress)
    assert events[-1].next == "record"
    assert session.take_late_sleeps() == []


def test_on_sleep_sees_the_sleeps_of_a_reply_that_is_closed(talker: Talker) -> None:
    """The line that is ended for the reply may fill the window."""
    num_late = 0
    for length in range(1, WINDOW):
        seen: list[SleepReport] = []
        session = talker.session(on_sleep=seen.append)
        session.read("x" * length)
        pieces = session.stream("H")
        next(pieces)
        num_before = len(seen)
        pieces.close()  # pyright: ignore[reportAttributeAccessIssue]
        assert seen == session.sleeps
        num_late += len(seen) - num_before
    assert num_late


def test_late_sleeps_are_told_once(session: Session) -> None:
    session.read("x" * (WINDOW - 6))
    told = say(session.talker.tokenizer, ChatFormat(), "user", "H", "user")
    steps = session.take_turn([told], max_new_tokens=9)
    next(steps)
    assert session.state.window_fill == WINDOW - 1
    steps.close()
    assert session.take_late_sleeps() == session.sleeps != []
    assert session.take_late_sleeps() == []


# Interruptions.


@pytest.mark.parametrize("kind", ["told", "reply"])
def test_an_interrupted_call_leaves_the_session_as_it_was(talker: Talker, kind: EntryKind) -> None:
    def interrupt(report: SleepReport) -> None:
        if report.number == 3:
            raise KeyboardInterrupt

    session = talker.session(on_sleep=interrupt)
    session.read("Hello")
    before = session.state
    entry = Entry(kind=kind, time=0, source="user", text="", tokens=(65,) * 5 * WINDOW)
    with pytest.raises(KeyboardInterrupt):
        session.repeat(entry)
    assert session.state is before
    assert (len(session.entries), session.sleeps) == (1, [])


@pytest.mark.parametrize("max_new_tokens", [2, 3, 100])
def test_an_interrupted_reply_records_what_was_read(talker: Talker, max_new_tokens: int) -> None:
    """Within the prompt, at the end that the line is given, and within the reply."""
    seen: list[SleepReport] = []

    def interrupt(report: SleepReport) -> None:
        seen.append(report)
        if len(seen) == 1:
            raise KeyboardInterrupt

    session = talker.session(sampling=Sampling(temperature=1.0, top_k=40), on_sleep=interrupt)
    session.read("Hello")
    with pytest.raises(KeyboardInterrupt):
        session.generate("H", max_new_tokens=max_new_tokens)
    read = sum(len(entry.tokens) for entry in session.entries)
    assert session.state.counters.tokens_seen == read >= WINDOW - 3
    assert len(session.sleeps) == session.state.counters.num_sleeps
    assert not session.status().is_replying
    session.generate("go on")


# Forks and files.


def test_forks_go_their_own_ways(session: Session, start: Start) -> None:
    session.read("Ann lives in Lima.")
    fork = session.fork()
    fork.read("Bob lives in Rome.")
    alone = start()
    alone.read("Ann lives in Lima.")
    assert_same(session.state, alone.state)
    said = session.generate("Where is Ann?")
    assert alone.generate("Where is Ann?") == said
    assert_same(session.state, alone.state)
    assert (len(fork.entries), len(session.entries)) == (2, 3)
    assert fork.sleeps != session.sleeps


def test_a_saved_session_goes_on_as_if_never_stopped(
    session: Session, start: Start, tmp_path: Path
) -> None:
    session.read("Ann lives in Lima.")
    session.save(tmp_path / "memory")
    restored = start()
    restored.read("something else")
    restored.load(tmp_path / "memory")
    assert (restored.entries, restored.sleeps) == ([], [])
    assert restored.generate("Where?") == session.generate("Where?")
    assert_same(restored.state, session.state)


def test_a_session_can_be_saved_in_the_middle_of_a_reply(
    session: Session, start: Start, tmp_path: Path
) -> None:
    for _ in session.stream("Hello", max_new_tokens=2 * WINDOW):
        session.save(tmp_path / "memory")
        restored = start()
        restored.load(tmp_path / "memory")
        assert_same(restored.state, session.state)


def test_a_file_of_another_session_changes_nothing(session: Session, tmp_path: Path) -> None:
    other = Session(session.talker._replace(model=HybridLM(session.talker.model.config)))
    other.save(tmp_path / "memory")
    session.read("Hello")
    before = session.state
    with pytest.raises(ValueError, match="memory: the memory of another model"):
        session.load(tmp_path / "memory")
    assert session.state is before
    assert len(session.entries) == 1


def test_status(session: Session) -> None:
    session.read("x" * (WINDOW + 3))
    status = session.status()
    assert (status.tokens_seen, status.window_fill, status.window) == (WINDOW + 3, 3, WINDOW)
    assert (status.num_sleeps, status.num_entries, status.is_replying) == (1, 1, False)
    assert status.nbytes == session.state.nbytes


@pytest.mark.parametrize("passes", [0, -1, 65, 2**32])
def test_a_sleep_has_a_bound(session: Session, passes: int) -> None:
    session.read("Hello")
    before = session.state
    for sleep in (
        lambda: session.sleep(passes),
        lambda: session.repeat(Entry(kind="sleep", time=0.0, source="asked", passes=passes)),
    ):
        with pytest.raises(
            ValueError, match=rf"passes is {passes}; use 1 \(plain eviction\) to 64"
        ):
            sleep()
    assert (session.state, session.sleeps) == (before, [])
    report = session.sleep(64)
    assert report is not None
    assert report.passes == 64


def test_tokens_that_the_model_does_not_know_are_not_read(session: Session) -> None:
    entry = Entry(kind="told", time=0.0, source="user", text="?", tokens=(65, 256))
    before = session.state
    with pytest.raises(ValueError, match="it has a token out of 0 to 255"):
        session.repeat(entry)
    with pytest.raises(ValueError, match="it has a token out of 0 to 255"):
        list(session.take_turn([entry], max_new_tokens=1))
    assert (session.state, session.entries) == (before, [])
