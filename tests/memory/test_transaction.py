"""A sleep is taken whole or not at all, and its report says what each pass did."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Generator
from typing import Any

import pytest
import torch
from torch import Tensor

from slowwave.memory.catalogue import dump_report
from slowwave.memory.catalogue_rows import REPORT
from slowwave.memory.config import Canary, GateConfig
from slowwave.memory.session import Session
from slowwave.memory.sleep_report import SleepReport, Trigger
from slowwave.memory.talker import Talker
from slowwave.memory.transaction import sleep_by_pass
from slowwave.memory.turn import Progress, finish
from slowwave.models.backbone import HybridLM
from slowwave.sleep.config import BetweenPasses, Passes, SleepConfig
from slowwave.sleep.consolidate import consolidate, consolidate_by_pass
from slowwave.sleep.stream import read_stream
from slowwave.state import MemoryState

WINDOW = 12
TEXTS = ("A text that nobody told it.",)
REFUSES = GateConfig(held_out=TEXTS, max_median_rise=-9)
ACCEPTS = GateConfig(held_out=TEXTS, max_median_rise=9)


def tensors(state: MemoryState) -> list[Tensor]:
    return list(state.tensors().values())


def assert_same(actual: MemoryState, expected: MemoryState) -> None:
    assert (actual.counters.tokens_seen, actual.counters.num_sleeps) == (
        expected.counters.tokens_seen,
        expected.counters.num_sleeps,
    )
    for mine, other in zip(tensors(actual), tensors(expected), strict=True):
        assert torch.equal(mine, other)


def open_window(talker: Talker, fill: int) -> MemoryState:
    """A window that no sleep has closed, after one that slept."""
    longer = dataclasses.replace(talker.sleep, window=WINDOW + 1)
    with torch.inference_mode():
        ids = torch.tensor([list(b"abcdefghijklmnopqrstuvwxyz"[: WINDOW + 1 + fill])])
        return read_stream(talker.model, ids, talker.model.initial_state(1), longer)[1]


def norm_of(tensor: Tensor) -> float:
    return tensor.double().square().sum().sqrt().item()


@pytest.mark.parametrize("between", ["carry", "reset", "frozen"])
def test_changes_of_every_pass(talker: Talker, between: BetweenPasses) -> None:
    """By hand, from what every pass leaves; also where it began elsewhere."""
    talker = talker._replace(
        sleep=SleepConfig(window=WINDOW, passes=4, consolidator=Passes(between_passes=between))
    )
    state = open_window(talker, 7)
    left = list[tuple[Tensor, ...]]()
    with torch.inference_mode():
        consolidate(
            talker.model,
            state,
            passes=4,
            sleep=talker.sleep,
            on_pass=lambda n, after: left.append(after.fast_weights),
        )
        _, report = finish(sleep_by_pass(talker, state, passes=4, trigger="asked"))
    expected = [
        [norm_of(new - old) / norm_of(old) for old, new in zip(before, after, strict=True)]
        for before, after in itertools.pairwise(left)
    ]
    assert len(report.pass_changes) == 3
    for found, wanted in zip(report.pass_changes, expected, strict=True):
        assert len(found) == 2
        assert found == pytest.approx(wanted, rel=1e-5)
        assert min(found) > 1e-3
    assert report.verdict is None


def test_changes_of_a_prelude_and_a_coda(talker: Talker) -> None:
    """A prelude runs once; a coda begins again at the window's start, after the last pass."""
    sizes = dataclasses.replace(talker.model.config, layers=("gdn",) * 3, prelude=1, coda=1)
    talker = talker._replace(model=HybridLM(sizes, seed=1))
    with torch.inference_mode():
        _, report = finish(sleep_by_pass(talker, open_window(talker, 7), passes=4, trigger="asked"))
    prelude, core, coda = zip(*report.pass_changes, strict=True)
    assert prelude == (0, 0, 0)
    assert min(core) > 1e-3
    assert coda[:2] == (0, 0)
    assert coda[2] > 1e-3


def test_two_passes_change_what_the_sleep_changes(session: Session) -> None:
    session.read("x" * (WINDOW + 3))
    plain = session.sleep(passes=1)
    assert plain is not None
    assert plain.pass_changes == ()
    assert session.sleeps[0].pass_changes == (session.sleeps[0].changes,)


@pytest.mark.parametrize("eviction", ["all", "sliding"])
@pytest.mark.parametrize("trigger", ["asked", "idle", "full"])
@pytest.mark.parametrize("is_refused", [False, True])
def test_a_sleep_is_taken_whole_or_not_at_all(
    talker: Talker, eviction: str, trigger: Trigger, is_refused: bool
) -> None:
    sleep = SleepConfig.from_dict({"window": WINDOW, "passes": 2, "eviction": eviction})
    talker = talker._replace(sleep=sleep)
    state = open_window(talker, WINDOW if trigger == "full" else 7)
    gate = REFUSES if is_refused else ACCEPTS
    with torch.inference_mode():
        after, report = finish(sleep_by_pass(talker, state, passes=3, trigger=trigger, gate=gate))
        slept = consolidate(talker.model, state, passes=3, sleep=sleep)
        evicted = consolidate(talker.model, state, passes=1, sleep=sleep)
        _, ungated = finish(sleep_by_pass(talker, state, passes=3, trigger=trigger))
    refused = evicted if trigger == "full" else state
    assert_same(after, refused if is_refused else slept)
    assert (report.is_rejected, report.is_undone) == (is_refused, is_refused and trigger != "full")
    assert report.num_evicted == (0 if report.is_undone else state.window_fill)
    assert report.verdict is not None
    assert report.verdict.outcome == ("rejected" if is_refused else "accepted")
    # The report is of what was tried, but for the size of what is gone on with.
    assert report.bytes_after == after.nbytes
    told = dataclasses.replace(report, verdict=None, milliseconds=0, bytes_after=0)
    assert told == dataclasses.replace(ungated, milliseconds=0, bytes_after=0)
    assert (report.number, report.tokens) == (state.counters.num_sleeps + 1, state.window_fill)


@pytest.mark.parametrize("trigger", ["asked", "full"])
def test_one_pass_cannot_be_refused(talker: Talker, trigger: Trigger) -> None:
    state = open_window(talker, WINDOW if trigger == "full" else 7)
    with torch.inference_mode():
        after, report = finish(
            sleep_by_pass(talker, state, passes=1, trigger=trigger, gate=REFUSES)
        )
        assert_same(after, consolidate(talker.model, state, passes=1, sleep=talker.sleep))
    assert report.verdict is not None
    assert report.verdict.outcome == "accepted_unmeasured"
    assert report.verdict.reasons == ("one pass is plain eviction, which cannot be refused",)


def test_canaries_decide(session: Session) -> None:
    """What is said without the sleep alone, and what is said with it alone."""
    session.read("Ann lives in Lima")
    session.sampling = dataclasses.replace(session.sampling, temperature=0)
    slept = session.fork()
    slept.sleep()
    said, later = (
        next(
            (question, reply, other)
            for question in ("Where?", "Who?", "What?", "When?", "Why?")
            if (reply := mine.fork().generate(question, max_new_tokens=5))
            and (other := theirs.fork().generate(question, max_new_tokens=5)) != reply
            and reply.strip()
            and reply.strip() not in other
        )
        for mine, theirs in ((session, slept), (slept, session))
    )
    for (question, reply, _), outcome in ((said, "rejected"), (later, "accepted")):
        canary = Canary(question=question, answer=reply)
        gate = GateConfig(canaries=(canary,), max_new_tokens=5)
        fork = session.fork()
        fork.gate = gate
        report = fork.sleep()
        assert report is not None
        assert report.verdict is not None
        assert report.verdict.outcome == outcome
        assert_same(fork.state, session.state if outcome == "rejected" else slept.state)


def test_a_rejected_sleep_leaves_a_report(talker: Talker) -> None:
    seen = list[SleepReport]()
    session = talker.session(on_sleep=seen.append, gate=REFUSES)
    session.read("x" * 5)
    before = session.state
    reports = [session.sleep(), session.sleep(trigger="idle")]
    assert session.state is before
    assert reports == session.sleeps == seen
    assert [report.number for report in session.sleeps] == [1, 1]
    assert [entry.source for entry in session.entries] == ["user", "asked", "idle"]
    session.gate = None
    assert session.sleep() == session.sleeps[-1]
    assert (session.sleeps[-1].number, session.state.counters.num_sleeps) == (1, 1)
    session.gate = REFUSES
    session.read("x" * WINDOW)
    assert (session.sleeps[-1].number, session.state.counters.num_sleeps) == (2, 2)
    assert session.state.window_fill == 0


def test_forks_keep_the_gate(session: Session) -> None:
    session.gate = REFUSES
    session.read("x" * 5)
    fork = session.fork()
    report = fork.sleep()
    assert report is not None
    assert report.is_rejected


def test_what_a_gate_measures_is_steps_too(session: Session) -> None:
    """A gate may have any number of questions, and others wait for no more than one of them."""
    canaries = tuple(Canary(question=f"{i}?", answer="b") for i in range(8))
    session.gate = dataclasses.replace(ACCEPTS, canaries=canaries, max_new_tokens=3)
    session.read("Hello")
    before = session.state
    steps = session.sleep_by_pass()
    count = sum(1 for _ in itertools.takewhile(lambda event: event == Progress("sleep"), steps))
    assert count >= session.talker.sleep.passes + 2 * len(canaries)
    steps.close()
    session.state = before
    steps = session.sleep_by_pass()
    for _ in range(count - 1):
        next(steps)
    steps.close()
    assert session.state is before


def test_a_gate_needs_sleeps(talker: Talker) -> None:
    sleep = SleepConfig(window=WINDOW, eviction="none")
    with pytest.raises(ValueError, match=r"there is a gate, but sleep\.eviction is none, which"):
        talker._replace(sleep=sleep).session(gate=ACCEPTS)


def test_without_a_gate_nothing_is_measured(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr("slowwave.memory.transaction.judge", fail)
    session.read("x" * (2 * WINDOW + 3))
    session.sleep()
    session.gate = ACCEPTS
    with pytest.raises(AssertionError, match="asked"):
        session.read("x" * WINDOW)


# Reports on disk.


def test_reports_are_read_back(session: Session) -> None:
    session.gate = dataclasses.replace(
        REFUSES, canaries=(Canary(question="a", answer="b"),), max_new_tokens=3
    )
    session.read("x" * (WINDOW + 5))
    session.sleep()
    session.sleep(passes=1)
    assert {report.is_rejected for report in session.sleeps} == {True, False}
    for report in session.sleeps:
        assert REPORT.validate_json(dump_report(report)) == report
        other = dataclasses.replace(report, consolidator="ridge")
        assert REPORT.validate_json(dump_report(other)) == other


def test_reports_of_before_are_read() -> None:
    text = (
        '{"trigger":"full","number":1,"tokens":12,"passes":2,"milliseconds":1.5,'
        '"bytes_before":3360,"bytes_after":1728,"changes":[0.5,0.25]}'
    )
    report = REPORT.validate_json(text)
    assert (report.changes, report.pass_changes, report.verdict) == ((0.5, 0.25), (), None)
    assert not report.is_rejected


def test_a_sleep_that_broke_is_told_in_numbers(
    talker: Talker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_weights(*arguments: Any, **options: Any) -> Generator[MemoryState, None, MemoryState]:
        slept = yield from consolidate_by_pass(*arguments, **options)
        return slept.map(lambda t: t * float("nan") if t.is_floating_point() else t)

    monkeypatch.setattr("slowwave.memory.transaction.consolidate_by_pass", break_weights)
    state = open_window(talker, 5)
    with torch.inference_mode():
        after, report = finish(
            sleep_by_pass(talker, state, passes=2, trigger="idle", gate=GateConfig())
        )
    assert after is state
    assert report.is_undone
    assert "nan" not in dump_report(report).lower().replace("nan or infinity", "")
