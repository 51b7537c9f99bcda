"""The gate measures what a session would go on with, and rejects by its rules alone."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from slowwave.memory.config import Canary, GateConfig
from slowwave.memory.gate import compare, judge, measure
from slowwave.memory.questions import measure_answer
from slowwave.memory.session import Session
from slowwave.memory.sleep_report import Measures, Verdict
from slowwave.memory.talker import Talker
from slowwave.memory.turn import finish
from slowwave.runtime.config import Sampling
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.consolidate import consolidate
from slowwave.sleep.stream import read_stream
from slowwave.state import MemoryState

WINDOW = 12
TEXTS = ("A text of some length that nobody told it.", "More.", "!")
GATE = GateConfig(
    canaries=(Canary(question="Where?", answer="Lima"), Canary(question="Who?", answer=" Bob ")),
    held_out=TEXTS,
    max_new_tokens=5,
)
SLEEPS = {
    "all": SleepConfig(window=WINDOW, passes=3),
    "sliding": SleepConfig(window=WINDOW, passes=2, eviction="sliding", sinks=1),
    "wake": SleepConfig(window=WINDOW, passes=2, wake_passes=2),
}


def read(talker: Talker, text: str) -> MemoryState:
    state = talker.model.initial_state(1)
    if not text:
        return state
    with torch.inference_mode():
        return read_stream(talker.model, ids(text), state, talker.sleep)[1]


def sleep(talker: Talker, state: MemoryState, passes: int) -> MemoryState:
    with torch.inference_mode():
        return consolidate(talker.model, state, passes=passes, sleep=talker.sleep)


def ids(text: str) -> Tensor:
    return torch.tensor([list(text.encode())])


def nll_of(talker: Talker, state: MemoryState, text: str) -> list[float]:
    """Of every byte but the first, read on a copy that never sleeps, one call a byte."""
    found = list[float]()
    wide = dataclasses.replace(talker.sleep, window=1000)
    with torch.inference_mode():
        for byte, following in zip(text.encode(), text.encode()[1:], strict=False):
            hidden, state = read_stream(talker.model, torch.tensor([[byte]]), state, wide)
            found.append(-float(talker.model.logits(hidden)[0, -1].log_softmax(0)[following]))
    return found


@pytest.mark.parametrize("setting", sorted(SLEEPS))
@pytest.mark.parametrize(("text", "room"), [("", WINDOW), ("x" * (WINDOW + 5), 7)])
def test_held_out_text_is_read_in_pieces_that_fit(
    talker: Talker, setting: str, text: str, room: int
) -> None:
    """Every token but the first of a text is predicted once, from room - 1 tokens at most."""
    talker = talker._replace(sleep=SLEEPS[setting])
    state = read(talker, text)
    expected = list[float]()
    for held_out in TEXTS:
        for start in range(0, len(held_out), room - 1):
            expected += nll_of(talker, state, held_out[start : start + room])
    assert len(expected) == sum(len(held_out) - 1 for held_out in TEXTS)
    found = finish(measure(talker, GATE, state, room=room))
    assert found.num_tokens == len(expected)
    assert found.mean_nll == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    assert found.median_nll == pytest.approx(torch.tensor(expected).quantile(0.5).item(), rel=1e-5)


def test_canaries_are_asked_as_a_session_is(session: Session) -> None:
    session.read("Ann lives in Lima. Bob.")
    known = session.fork()
    known.sampling = Sampling()
    said = known.fork().generate("Where?", max_new_tokens=5)
    canaries = (Canary(question="Where?", answer=f" {said[:2]}\n"), GATE.canaries[1])
    gate = dataclasses.replace(GATE, canaries=canaries, held_out=())
    found = finish(measure(session.talker, gate, session.state, room=2))
    assert found.right == (True, False)
    expected = [
        measure_answer(session.talker, session.state, c.question, c.answer).mean().item()
        for c in canaries
    ]
    assert found.canary_nll == pytest.approx(expected, rel=1e-6)
    assert (found.median_nll, found.mean_nll, found.num_tokens) == (None, None, 0)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text("ab ", min_size=1, max_size=3 * WINDOW).filter(lambda t: len(t) % WINDOW),
    limit=st.sampled_from(["max_canary_nll_rise", "max_median_rise", "max_mean_rise"]),
    rise=st.floats(-0.3, 0.3),
)
def test_a_sleep_is_accepted_if_its_rise_is_within_the_limit(
    talker: Talker, text: str, limit: str, rise: float
) -> None:
    state = read(talker, text)
    slept = sleep(talker, state, 2)
    limits = dict.fromkeys(["max_canary_nll_rise", "max_median_rise", "max_mean_rise"], None)
    gate = dataclasses.replace(GATE, **(limits | {limit: rise}))
    verdict = finish(judge(talker, gate, refused=state, accepted=slept))
    room = WINDOW - state.window_fill
    before, after = (finish(measure(talker, gate, memory, room=room)) for memory in (state, slept))
    assert (verdict.refused, verdict.accepted) == (before, after)
    change = {
        "max_canary_nll_rise": sum(after.canary_nll) / 2 - sum(before.canary_nll) / 2,
        "max_median_rise": (after.median_nll or 0) - (before.median_nll or 0),
        "max_mean_rise": (after.mean_nll or 0) - (before.mean_nll or 0),
    }[limit]
    is_measured = limit == "max_canary_nll_rise" or room > 1
    assert (verdict.outcome == "rejected") == (is_measured and change > rise)
    broken = [reason for reason in verdict.reasons if "without the sleep" in reason]
    assert len(broken) == (verdict.outcome == "rejected")
    if broken:
        assert f"a rise of {change:.4f}, and gate.{limit} is {rise}" in broken[0]


# Rules, from what was measured.


KNOWN = Measures(right=(True, True, False), canary_nll=(1.0, 2.0, 3.0), median_nll=2, mean_nll=3)
THREE = tuple(Canary(question=name, answer="a") for name in ("first", "second", "third"))


def rule(**limits: float | None) -> GateConfig:
    every = ("max_lost_canaries", "max_canary_nll_rise", "max_median_rise", "max_mean_rise")
    unjudged = dict.fromkeys(every, None)
    return dataclasses.replace(GateConfig(canaries=THREE), **(unjudged | limits))


@pytest.mark.parametrize(
    ("limits", "changes", "reason"),
    [
        ({}, {"right": (False, False, False), "median_nll": 9.0, "mean_nll": 9.0}, None),
        ({"max_lost_canaries": 0.0}, {}, None),
        ({"max_lost_canaries": 0.5}, {"right": (True, False, True)}, None),
        (
            {"max_lost_canaries": 0.4},
            {"right": (True, False, True)},
            "1 of 2 canaries that are right without the sleep are wrong with it, and "
            "gate.max_lost_canaries is 0.4: 'second'",
        ),
        (
            {"max_lost_canaries": 0.0},
            {"right": (False, False, True)},
            "2 of 2 canaries that are right without the sleep are wrong with it, and "
            "gate.max_lost_canaries is 0.0: 'first', 'second'",
        ),
        ({"max_lost_canaries": 1.0}, {"right": (False, False, False)}, None),
        ({"max_canary_nll_rise": 1.0}, {"canary_nll": (1.0, 2.0, 6.0)}, None),
        (
            {"max_canary_nll_rise": 0.9},
            {"canary_nll": (1.0, 2.0, 6.0)},
            "the mean NLL of the canaries' answers is 2.0000 nats per token without the sleep and "
            "3.0000 with it, a rise of 1.0000, and gate.max_canary_nll_rise is 0.9",
        ),
        ({"max_median_rise": 0.5}, {"median_nll": 2.5, "mean_nll": 9.0}, None),
        (
            {"max_median_rise": 0.25},
            {"median_nll": 2.5},
            "the median NLL of held-out text is 2.0000 nats per token without the sleep and 2.5000 "
            "with it, a rise of 0.5000, and gate.max_median_rise is 0.25",
        ),
        ({"max_mean_rise": 0.5}, {"median_nll": 9.0}, None),
        (
            {"max_mean_rise": -0.5},
            {},
            "the mean NLL of held-out text is 3.0000 nats per token without the sleep and 3.0000 "
            "with it, a rise of 0.0000, and gate.max_mean_rise is -0.5",
        ),
        (
            {"max_mean_rise": 0.5},
            {"mean_nll": float("nan")},
            "the mean NLL of held-out text is 3.0000 nats per token without the sleep and nan "
            "with it, a rise of nan, and gate.max_mean_rise is 0.5",
        ),
    ],
)
def test_rules(limits: dict, changes: dict, reason: str | None) -> None:
    reasons = compare(rule(**limits), KNOWN, dataclasses.replace(KNOWN, **changes))
    assert reasons == ([] if reason is None else [reason])


def test_every_broken_rule_is_a_reason() -> None:
    gate = rule(max_lost_canaries=0, max_canary_nll_rise=0, max_median_rise=0, max_mean_rise=0)
    worse = Measures(
        right=(False, False, False), canary_nll=(2, 3, 4), median_nll=3, mean_nll=4, num_tokens=9
    )
    assert len(compare(gate, KNOWN, worse)) == 4


# What cannot be measured.


def judge_sleep(talker: Talker, gate: GateConfig, fill: int = 5) -> Verdict:
    state = read(talker, "x" * fill)
    return finish(judge(talker, gate, refused=state, accepted=sleep(talker, state, 2)))


def test_nothing_to_measure_is_said(talker: Talker) -> None:
    verdict = judge_sleep(talker, GateConfig())
    assert verdict.outcome == "accepted_unmeasured"
    assert verdict.reasons == ("the gate has neither canaries nor held-out text",)
    verdict = judge_sleep(talker, GateConfig(held_out=("a", "b")))
    assert verdict.outcome == "accepted_unmeasured"
    assert verdict.reasons == ("held-out text was not read: no text has two tokens",)
    verdict = judge_sleep(talker, GateConfig(held_out=TEXTS, max_median_rise=-9), WINDOW - 1)
    assert verdict.outcome == "accepted_unmeasured"
    unread = "held-out text was not read: the open window has room for 1 more tokens"
    assert verdict.reasons == (unread,)
    gate = dataclasses.replace(GATE, max_canary_nll_rise=9.0)
    verdict = judge_sleep(talker, gate, WINDOW - 1)
    assert (verdict.outcome, verdict.reasons) == ("accepted", (unread,))
    assert judge_sleep(talker, gate, WINDOW - 2).reasons == ()


def test_a_memory_that_broke_is_rejected(talker: Talker) -> None:
    state = read(talker, "x" * 5)
    broken = sleep(talker, state, 2).map(
        lambda tensor: tensor * float("nan") if tensor.is_floating_point() else tensor
    )
    verdict = finish(judge(talker, GateConfig(), refused=state, accepted=broken))
    assert (verdict.outcome, verdict.accepted) == ("rejected", None)
    assert "the sleep left NaN or infinity in the fast weights" in verdict.reasons
