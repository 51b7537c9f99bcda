"""The trace changes nothing that it watches, and what it records is what happened."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import Tensor

from numerics import assert_close
from slowwave.lab.stream_trace import Event, ReadEvent, SleepEvent, StreamTrace, trace_stream
from slowwave.models.backbone import HybridLM
from slowwave.models.config import ModelConfig
from slowwave.sleep.config import BetweenPasses, Passes, SleepConfig
from slowwave.sleep.stream import read_stream
from slowwave.state import FastWeights, MemoryState

SIZES = ModelConfig(
    vocab_size=11, width=16, mlp_hidden=32, attn_heads=2, delta_heads=2, key_dim=8, value_dim=8
)
WINDOW, PASSES = 4, 3
SLEEP = SleepConfig(window=WINDOW, passes=PASSES)
NUM_TOKENS = 10  # two windows, and two tokens of the third


@pytest.fixture(scope="module")
def model() -> HybridLM:
    return HybridLM(SIZES, seed=1)


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.randint(0, 11, (1, NUM_TOKENS), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def trace(model: HybridLM, tokens: Tensor) -> StreamTrace:
    return trace_stream(model, tokens, SLEEP)


def _sleeps(trace: StreamTrace) -> list[SleepEvent]:
    return [event for event in trace.events if isinstance(event, SleepEvent)]


def _reads(trace: StreamTrace) -> list[ReadEvent]:
    return [event for event in trace.events if isinstance(event, ReadEvent)]


def _assert_equal(a: MemoryState, b: MemoryState) -> None:
    for old, new in zip(a.layers, b.layers, strict=True):
        assert type(old) is type(new)
        mine, others = old.tensors(), new.tensors()
        assert mine.keys() == others.keys()
        assert all(torch.equal(tensor, others[name]) for name, tensor in mine.items())
    assert torch.equal(a.window_tokens, b.window_tokens)
    assert torch.equal(a.window_hidden, b.window_hidden)
    assert (a.counters.tokens_seen, a.counters.num_sleeps) == (
        b.counters.tokens_seen,
        b.counters.num_sleeps,
    )


@pytest.mark.parametrize("recirculate", ["hidden", "normed"])
def test_results_are_those_of_reading_token_by_token(
    model: HybridLM, tokens: Tensor, recirculate: str
) -> None:
    sleep = SleepConfig.from_dict({"window": WINDOW, "passes": PASSES, "recirculate": recirculate})
    traced = trace_stream(model, tokens, sleep)
    hiddens: list[Tensor] = []
    state = model.initial_state(1)
    with torch.no_grad():
        for token in tokens.split(1, dim=1):
            hidden, state = read_stream(model, token, state, sleep)
            hiddens.append(hidden)
    assert torch.equal(traced.hidden, torch.cat(hiddens, dim=1))
    _assert_equal(traced.state, state)


def test_results_are_close_to_those_of_reading_at_once(tokens: Tensor) -> None:
    model = HybridLM(SIZES, seed=1).double()
    traced = trace_stream(model, tokens, SLEEP)
    hidden, state = read_stream(model, tokens, model.initial_state(1), SLEEP)
    assert_close(traced.hidden, hidden, 1e-10)
    for mine, other in zip(traced.state.fast_weights, state.fast_weights, strict=True):
        assert_close(mine, other, 1e-10)


def test_events_come_in_order(model: HybridLM, tokens: Tensor, trace: StreamTrace) -> None:
    seen: list[Event] = []
    trace_stream(model, tokens, SLEEP, on_event=seen.append)
    kinds = "rrrrSrrrrSrr"
    assert "".join("S" if isinstance(event, SleepEvent) else "r" for event in seen) == kinds
    assert [e.tokens_seen for e in seen] == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8, 9, 10]
    assert [read.window_fill for read in _reads(trace)] == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]
    assert [(s.window_tokens, s.passes) for s in _sleeps(trace)] == [(WINDOW, PASSES)] * 2
    assert all(sleep.milliseconds > 0 for sleep in _sleeps(trace))


def test_bytes_are_those_of_the_states(model: HybridLM, tokens: Tensor, trace: StreamTrace) -> None:
    state = model.initial_state(1)
    fast = sum(tensor.nbytes for tensor in state.fast_weights)
    for token, read in zip(tokens.split(1, dim=1)[:WINDOW], _reads(trace), strict=False):
        _, state = model.read(token, state)
        assert read.cache_nbytes == state.cache_nbytes
        assert read.state_nbytes == state.nbytes
    assert {read.fast_weights_nbytes for read in _reads(trace)} == {fast}
    first, second = _sleeps(trace)
    assert first.cache_nbytes_before == second.cache_nbytes_before == state.cache_nbytes > 0
    assert first.cache_nbytes_after == second.cache_nbytes_after == 0
    assert first.fast_weights_nbytes_before == first.fast_weights_nbytes_after == fast


def test_writes_are_the_changes_of_each_pass(
    model: HybridLM, tokens: Tensor, trace: StreamTrace
) -> None:
    """Each pass is computed again by running the blocks over the hidden states by hand."""
    state = model.initial_state(1)
    layers = [i for i, kind in enumerate(SIZES.layers) if kind == "gdn"]
    with torch.no_grad():
        for number, sleep in enumerate(_sleeps(trace)):
            window = tokens[:, number * WINDOW : (number + 1) * WINDOW]
            hidden = model.embed(window)
            assert len(sleep.writes) == PASSES
            for writes in sleep.writes:
                before = state
                hidden, state = model.run(hidden, state)
                state = state.evict()
                assert [write.layer for write in writes] == layers
                for write in writes:
                    old, new = before.layers[write.layer], state.layers[write.layer]
                    assert isinstance(old, FastWeights) and isinstance(new, FastWeights)
                    change = (new.weights - old.weights).square().sum().sqrt().item()
                    norm = new.weights.square().sum().sqrt().item()
                    assert write.change == pytest.approx(change, rel=1e-3)
                    assert write.norm == pytest.approx(norm, rel=1e-3)


@pytest.mark.parametrize("way", ["reset", "frozen"])
def test_writes_of_passes_that_start_again(
    model: HybridLM, tokens: Tensor, way: BetweenPasses
) -> None:
    """A pass has changed what it started from, not what the pass before it left."""
    sleep = dataclasses.replace(SLEEP, consolidator=Passes(between_passes=way))
    (event,) = _sleeps(trace_stream(model, tokens[:, :WINDOW], sleep))
    with torch.no_grad():
        start = model.initial_state(1)
        hidden, after = model.read(tokens[:, :WINDOW], start)
        begun = start if way == "reset" else after.evict()
        for writes in event.writes[1:]:
            hidden, state = model.run(hidden, begun)
            for write in writes:
                old, new = begun.layers[write.layer], state.layers[write.layer]
                assert isinstance(old, FastWeights) and isinstance(new, FastWeights)
                change = (new.weights - old.weights).norm().item()
                assert write.change == pytest.approx(change, rel=1e-3)


@pytest.mark.parametrize(
    "sleep",
    [
        SleepConfig(window=WINDOW, passes=2, eviction="sliding", sinks=1),
        SleepConfig(window=WINDOW, eviction="none", wake_passes=2),
    ],
    ids=["sliding", "none"],
)
def test_other_evictions_are_traced(model: HybridLM, tokens: Tensor, sleep: SleepConfig) -> None:
    traced = trace_stream(model, tokens, sleep)
    with torch.no_grad():
        hidden, state = read_stream(model, tokens, model.initial_state(1), sleep)
    assert_close(traced.hidden, hidden, 1e-4)
    assert [event.cache_nbytes_after > 0 for event in _sleeps(traced)] == [
        True
    ] * state.counters.num_sleeps


def test_plain_eviction_has_one_pass(model: HybridLM, tokens: Tensor) -> None:
    traced = trace_stream(model, tokens[:, :WINDOW], SleepConfig(window=WINDOW, passes=1))
    (sleep,) = _sleeps(traced)
    (writes,) = sleep.writes
    # The memory was empty, so what the read changed is all there is.
    assert all(write.change == write.norm > 0 for write in writes)


def test_plain_data_survives_json(trace: StreamTrace) -> None:
    plain = trace.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False))["events"][4]["writes"][2][1]["layer"] == 3
    assert plain["layers"] == ["attn", "gdn", "attn", "gdn"]
    assert SleepConfig.from_dict(plain["sleep"]) == SLEEP
    assert [event["kind"] for event in plain["events"]].count("sleep") == 2


@pytest.mark.parametrize("shape", [(2, 4), (1, 0), (4,)])
def test_one_stream_only(model: HybridLM, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"tokens have shape .*; give one stream, \(1, T\)"):
        trace_stream(model, torch.zeros(shape, dtype=torch.int64), SLEEP)
