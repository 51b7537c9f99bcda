"""A dream is part of a session: judged, taken whole, kept, forgotten, replayed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from byte_tokenizer import ByteTokenizer
from slowwave.memory.config import DreamConfig, GateConfig, read_dream
from slowwave.memory.consolidators import lora
from slowwave.memory.consolidators.lora import NothingToDream
from slowwave.memory.questions import measure_answer
from slowwave.memory.replay import plan_forgetting, replay, resleep
from slowwave.memory.session import Session
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker
from slowwave.models.backbone import HybridLM
from slowwave.models.int8 import quantize_
from slowwave.runtime.config import PLAIN
from slowwave.sleep.config import SleepConfig
from tiny_models import TWO_LAYERS

SLEEP = SleepConfig(window=128, passes=2)
TALKER = Talker(HybridLM(TWO_LAYERS, seed=1), ByteTokenizer(), SLEEP, PLAIN)
# Of a model that was never trained, text has room to be read worse.
QUICK = DreamConfig(steps=2, batch=4, rank=2, lr=0.02, anchors=1, max_anchor_rise=1.0)
TOLD = {
    "a": "My dog is called Rex.",
    "b": "I live in Lima.",
    "c": "I play the flute.",
    "d": "My car is red.",
}


def live(session: Session) -> Session:
    for source, text in TOLD.items():
        session.generate(text, source=source, max_new_tokens=2)
    return session


def delta(session: Session) -> list[Tensor]:
    assert session.state.delta is not None
    return [*session.state.delta.tensors().values()]


def assert_same(mine: Session, other: Session) -> None:
    found, expected = mine.state.tensors(), other.state.tensors()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_a_dream_adds_a_delta_and_nothing_else(tmp_path: Path) -> None:
    session = live(TALKER.session())
    weights = {name: each.clone() for name, each in TALKER.model.state_dict().items()}
    before = session.state
    report = session.dream(QUICK)
    after = session.state
    assert report.verdict is not None and report.verdict.outcome == "accepted"
    assert (report.trigger, report.consolidator, report.num_evicted) == ("dream", "lora", 0)
    assert report.dream is not None
    assert (report.dream.statements, report.dream.steps) == (4, 2)
    assert report.dream.nll[1] < report.dream.nll[0]
    assert after.counters == before.counters
    assert dataclasses.replace(after, delta=None).tensors().keys() == before.tensors().keys()
    assert all(torch.equal(after.tensors()[name], each) for name, each in before.tensors().items())
    assert report.bytes_after - before.nbytes == 2 * 2 * (24 + 16) * 4
    assert all(torch.equal(weights[n], each) for n, each in TALKER.model.state_dict().items())
    assert all(each.grad is None for each in TALKER.model.parameters())

    session.save(tmp_path / "memory")
    loaded, fork = TALKER.session(tmp_path / "memory"), session.fork()
    assert_same(loaded, session)
    first = delta(session)
    replies = [each.generate("And now?", max_new_tokens=3) for each in (session, loaded, fork)]
    assert replies[0] == replies[1] == replies[2]
    assert_same(loaded, session)

    session.read("My hat is blue.")  # no message of a user, but a text
    again = session.dream(dataclasses.replace(QUICK, seed=1))
    assert again.bytes_after - again.bytes_before == 0  # another in its place
    assert not all(map(torch.equal, delta(session), first))


def test_a_store_keeps_it_and_goes_back(tmp_path: Path) -> None:
    with Store(tmp_path / "store") as store:
        with store.open("ann", TALKER, create=True) as session:
            live(session)
            session.snapshot("awake")
            report = session.dream(QUICK)
            session.snapshot("dreamt")
            kept = session.state.tensors()
        assert [slept.report for slept in store.sleeps("ann")][-1] == report
        assert store.entries("ann")[-1].is_dream
        store.export("ann", tmp_path / "ann.zip")
        store.import_session(tmp_path / "ann.zip", "eve")
        store.fork("ann@dreamt", "bob")
        for name in ("bob", "eve"):
            found = store.state(name, TALKER).tensors()
            assert all(torch.equal(found[tensor], kept[tensor]) for tensor in kept)
        with store.open("ann", TALKER) as session:
            session.rollback("awake")
            assert session.state.delta is None
            session.rollback("dreamt")
            assert session.state.delta is not None
            session.forget(session.preview_forgetting(sources=["a"]))
            assert session.state.delta is not None
            first = [kept[name] for name in kept if name.startswith("delta")]
            assert not all(map(torch.equal, delta(session), first))
            session.forget(session.preview_forgetting(sources=["b"]))
            assert session.state.delta is None  # two statements are too few
            assert not any(entry.is_dream for entry in session.ledger())
        for file in (tmp_path / "store" / "states").iterdir():
            file.unlink()
        assert "eve" in store.rebuild("eve", TALKER)
        found = store.state("eve", TALKER).tensors()
        assert all(torch.equal(found[tensor], kept[tensor]) for tensor in kept)


def test_forgetting_is_never_having_dreamt_of_it() -> None:
    session = live(TALKER.session())
    session.dream(QUICK)
    kept = plan_forgetting(session.entries, sources=["a"]).kept_entries
    left = replay(TALKER.session, kept)
    never = replay(TALKER.session, kept[:-1])  # what was said, without the dream
    never.dream(QUICK)
    assert_same(left, never)
    assert not all(map(torch.equal, delta(left), delta(session)))


def test_it_moves_to_another_model() -> None:
    session = live(TALKER.session())
    session.dream(QUICK)
    sizes = dataclasses.replace(TWO_LAYERS, mlp_hidden=32)
    other = TALKER._replace(model=HybridLM(sizes, seed=2))
    moved = resleep(other.session, session.entries)
    assert moved.state.delta is not None
    assert moved.state.delta.layers[0].down.shape == (1, 2, 32)
    told = sum(len(entry.tokens) for entry in moved.entries)
    assert moved.state.counters.tokens_seen == told  # the settings of a dream are no text to read


@pytest.mark.parametrize(
    ("config", "told", "message"),
    [
        ({}, 2, "ledger has 2 statements of its user, and dream.least_statements is 3; tell more"),
        (
            {"max_nll": 0.0},
            4,
            r"refused all dreams: the model finds it too unlikely.* \(\d+\). Noth",
        ),
    ],
)
def test_nothing_to_dream_changes_nothing(config: dict[str, Any], told: int, message: str) -> None:
    session = TALKER.session()
    for text in [*TOLD.values()][:told]:
        session.generate(text, max_new_tokens=2)
    state, entries, sleeps = session.state, [*session.entries], [*session.sleeps]
    with pytest.raises(NothingToDream, match=message):
        session.dream(dataclasses.replace(QUICK, **config))
    assert session.state is state
    assert (session.entries, session.sleeps) == (entries, sleeps)


@pytest.mark.parametrize(
    ("change", "gate", "reason"),
    [
        (
            {"max_anchor_rise": 0.0, "anchors": 0, "steps": 25, "lr": 0.05},
            None,
            "dream.max_anchor_rise is 0.0",
        ),
        ({}, GateConfig(held_out=("Yes.",), max_mean_rise=-9.0), "gate.max_mean_rise is -9"),
    ],
)
def test_a_rejected_dream_leaves_the_state(
    change: dict[str, Any],
    gate: GateConfig | None,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Signs of which the answers have none, so that learning them makes these less likely.
    monkeypatch.setattr(lora, "ANCHORS", GateConfig(held_out=("ZQJX%%@@||~~ZQJX%%@@||~~",)))
    session = live(TALKER.session(gate=gate))
    state = session.state
    report = session.dream(dataclasses.replace(QUICK, **change))
    assert report.verdict is not None
    assert report.is_undone
    assert any(reason in each for each in report.verdict.reasons)
    assert session.state is state
    assert session.entries[-1].is_dream


def test_a_dream_that_learned_nothing_is_rejected() -> None:
    report = live(TALKER.session()).dream(dataclasses.replace(QUICK, lr=1e-30))
    assert report.verdict is not None
    assert "nothing was learned" in report.verdict.reasons[0]


def test_time_ends_it_and_the_ledger_knows_the_steps() -> None:
    session = live(TALKER.session())
    report = session.dream(dataclasses.replace(QUICK, seconds=1e-9, steps=50))
    assert report.dream is not None
    assert (report.dream.steps, report.dream.ended_by) == (1, "seconds")
    assert_same(replay(TALKER.session, session.entries), session)


def test_enough_ends_it() -> None:
    report = live(TALKER.session()).dream(dataclasses.replace(QUICK, enough=99.0, steps=50))
    assert report.dream is not None
    questions = report.dream.replayed
    assert (report.dream.steps, report.dream.ended_by) == (-(-questions // 4), "enough")


def test_broken_off_it_has_not_been() -> None:
    session = live(TALKER.session())
    state, entries, sleeps = session.state, [*session.entries], [*session.sleeps]
    steps = session.dream_by_step(QUICK)
    for _ in range(3):
        next(steps)
    steps.close()
    assert session.state is state
    assert (session.entries, session.sleeps) == (entries, sleeps)
    session.dream(QUICK)


@torch.inference_mode()
def test_it_learns_in_inference_mode_as_well() -> None:
    live(TALKER.session()).dream(QUICK)


def test_models_that_cannot_learn_are_refused() -> None:
    with pytest.raises(ValueError, match="the model has no chat, so no user tells it anything"):
        TALKER._replace(chat=None).session().dream(QUICK)
    model = HybridLM(TWO_LAYERS, seed=1)
    quantize_(model)
    with pytest.raises(ValueError, match="int8 weights computes no gradients; load it in float32"):
        TALKER._replace(model=model).session().dream(QUICK)


def test_settings_from_elsewhere_are_checked(tmp_path: Path) -> None:
    session = live(TALKER.session())
    session.dream(QUICK)
    unfit = (("[]", "settings of a dream are unfit"), ('{"rank": 0}', "dream.rank is 0"))
    for text, message in unfit:
        with pytest.raises(ValueError, match=message):
            session.repeat(dataclasses.replace(session.entries[-1], text=text))
    path = tmp_path / "dream.toml"
    path.write_text("steps = 0\n")
    with pytest.raises(ValueError, match=r"dream.toml: dream.steps is 0; use 1 to 100000"):
        read_dream(path)
    path.write_text("steps = 7\n")
    assert read_dream(path) == DreamConfig(steps=7)


def test_what_was_told_is_known_better_than_before_and_better_than_what_was_not() -> None:
    """Out of the window, which has slept; in words that were not trained."""
    model = HybridLM(dataclasses.replace(TWO_LAYERS, width=48, mlp_hidden=96), seed=1)
    session = live(TALKER._replace(model=model).session())
    session.sleep()

    def measure(text: str) -> float:
        nll = measure_answer(session.talker, session.state, "So, my dog is called?", text)
        return float(nll.mean())

    told, other = "Your dog is called Rex.", "Your dog is called Wim."
    before = measure(told), measure(other)
    config = dataclasses.replace(QUICK, steps=60, batch=8, rank=8, lr=0.03)
    assert not session.dream(config).is_rejected
    assert measure(told) < before[0] - 1
    assert measure(told) - measure(other) < before[0] - before[1] - 0.05
