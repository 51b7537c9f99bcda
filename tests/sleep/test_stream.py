"""Reading a stream in pieces with sleeps in between is what training unrolled."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from numerics import assert_close
from slowwave.models.backbone import HybridLM
from slowwave.models.config import ModelConfig
from slowwave.sleep.config import Passes, Recirculate, SleepConfig
from slowwave.sleep.schedule import NO_LOSS
from slowwave.sleep.stream import read_stream
from slowwave.sleep.unroll import unroll
from slowwave.state import FastWeights, MemoryState
from stream_pieces import read_pieces

DrawTokens = Callable[..., Tensor]

# Of the design: raw recirculation amplifies rounding 30 to 50 times at initialisation.
STREAM_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
RECIRCULATE: tuple[Recirculate, ...] = ("hidden", "normed", "normed+embedding", "embedding")
T, WINDOW = 23, 5


def score_the_end(tokens: Tensor, count: int = 2) -> Tensor:
    targets = torch.full_like(tokens, NO_LOSS)
    targets[:, -count:] = tokens[:, -count:]
    return targets


@pytest.mark.parametrize("recirculate", RECIRCULATE)
@pytest.mark.parametrize("passes", [1, 2, 3, 4])
@pytest.mark.parametrize("cuts", [[], [2, 9, 10, 11], list(range(1, T))], ids=["1", "5", "T"])
@pytest.mark.parametrize("dtype", STREAM_TOLERANCE)
def test_streaming_equals_unrolling(
    model: HybridLM,
    draw_tokens: DrawTokens,
    dtype: torch.dtype,
    cuts: list[int],
    passes: int,
    recirculate: Recirculate,
) -> None:
    model.to(dtype)
    tokens = draw_tokens(2, T)
    targets = score_the_end(tokens)
    sleep = SleepConfig(window=WINDOW, passes=passes, consolidator=Passes(recirculate=recirculate))
    with torch.no_grad():
        rollout = unroll(model, tokens, targets, sleep)
    hidden, state = read_pieces(model, tokens, cuts, sleep)
    tolerance = STREAM_TOLERANCE[dtype]
    assert_close(hidden, rollout.hidden, tolerance)
    assert_close(model.logits(hidden[targets != NO_LOSS]), rollout.logits, tolerance)
    for actual, expected in zip(state.fast_weights, rollout.state.fast_weights, strict=True):
        assert_close(actual, expected, tolerance)
    assert (state.counters.tokens_seen, state.counters.num_sleeps, state.window_fill) == (T, 4, 3)
    assert torch.equal(state.window_tokens, tokens[:, -3:])


@pytest.mark.parametrize("passes", [1, 2, 4])
@pytest.mark.parametrize("cuts", [[], [2, 9, 10, 11], list(range(1, T))], ids=["1", "5", "T"])
@pytest.mark.parametrize("dtype", STREAM_TOLERANCE)
def test_streaming_equals_unrolling_with_loss_everywhere(
    model: HybridLM, draw_tokens: DrawTokens, dtype: torch.dtype, cuts: list[int], passes: int
) -> None:
    """`sleep_after` trains on the schedule by which a stream is read, wherever the loss is."""
    model.to(dtype)
    tokens = draw_tokens(2, T)
    targets = draw_tokens(2, T, seed=1)
    targets[1, 7:12] = NO_LOSS
    sleep = SleepConfig(window=WINDOW, passes=passes, loss_windows="sleep_after")
    with torch.no_grad():
        rollout = unroll(model, tokens, targets, sleep, keep_hidden=False)
    hidden, state = read_pieces(model, tokens, cuts, sleep)
    tolerance = STREAM_TOLERANCE[dtype]
    assert_close(model.logits(hidden[targets != NO_LOSS]), rollout.logits, tolerance)
    for actual, expected in zip(state.fast_weights, rollout.state.fast_weights, strict=True):
        assert_close(actual, expected, tolerance)
    assert rollout.state.counters.num_sleeps == state.counters.num_sleeps == T // WINDOW
    assert torch.equal(rollout.state.window_tokens, state.window_tokens)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.sets(st.integers(1, T - 1)), window=st.integers(1, 9))
def test_any_cutting_of_any_windows(
    model: HybridLM, draw_tokens: DrawTokens, cuts: set[int], window: int
) -> None:
    tokens = draw_tokens(1, T)
    sleep = SleepConfig(window=window, passes=2)
    expected, whole = read_pieces(model, tokens, [], sleep)
    hidden, state = read_pieces(model, tokens, sorted(cuts), sleep)
    assert_close(hidden, expected, 1e-10)
    assert state.counters.num_sleeps == whole.counters.num_sleeps == T // window


@pytest.mark.parametrize("cuts", [[], [1, 64, 65, 66, 130]])
def test_windows_longer_than_a_chunk(
    model: HybridLM, draw_tokens: DrawTokens, cuts: list[int]
) -> None:
    tokens = draw_tokens(2, 145)
    sleep = SleepConfig(window=70, passes=3)
    with torch.no_grad():
        rollout = unroll(model, tokens, score_the_end(tokens), sleep)
    hidden, _ = read_pieces(model, tokens, cuts, sleep)
    assert_close(hidden, rollout.hidden, 1e-10)


def test_unrolling_goes_on_from_an_open_window(model: HybridLM, draw_tokens: DrawTokens) -> None:
    tokens = draw_tokens(2, T)
    targets = score_the_end(tokens)
    sleep = SleepConfig(window=WINDOW, passes=3)
    whole = unroll(model, tokens, targets, sleep)
    _, state = read_pieces(model, tokens[:, :8], [], sleep)
    rest = unroll(model, tokens[:, 8:], targets[:, 8:], sleep, state)
    assert_close(rest.logits, whole.logits, 1e-10)
    assert_close(rest.hidden, whole.hidden[:, 8:], 1e-10)


def test_one_pass_is_the_ordinary_hybrid(model: HybridLM, draw_tokens: DrawTokens) -> None:
    """Windows of tokens one after the other, nothing carried but the fast weights."""
    tokens = draw_tokens(2, T)
    hidden, _ = read_pieces(model, tokens, [], SleepConfig(window=WINDOW, passes=1))
    weights = model.initial_state(2).fast_weights
    for window in range(0, T, WINDOW):
        state = set_weights(model.initial_state(2), weights)
        piece = tokens[:, window : window + WINDOW]
        expected, state = model.run(model.embed(piece), state)
        weights = state.fast_weights
        assert_close(hidden[:, window : window + WINDOW], expected, 1e-10)


def set_weights(state: MemoryState, weights: tuple[Tensor, ...]) -> MemoryState:
    left = list(weights)
    layers = tuple(
        FastWeights(left.pop(0), layer.conv_tail) if isinstance(layer, FastWeights) else layer
        for layer in state.layers
    )
    return dataclasses.replace(state, layers=layers)


@pytest.mark.parametrize("passes", [1, 3])
def test_evicted_tokens_act_through_the_fast_weights_alone(
    model: HybridLM, draw_tokens: DrawTokens, passes: int
) -> None:
    sleep = SleepConfig(window=WINDOW, passes=passes)
    _, slept = read_pieces(model, draw_tokens(2, 2 * WINDOW), [7], sleep)
    tokens = draw_tokens(2, WINDOW - 1, seed=1)
    fresh, _ = model.read(tokens, model.initial_state(2))
    remembering, _ = model.read(tokens, slept)
    assert not torch.allclose(remembering, fresh, rtol=1e-3)
    zeroed = set_weights(slept, tuple(torch.zeros_like(w) for w in slept.fast_weights))
    forgetful, _ = model.read(tokens, zeroed)
    assert torch.equal(forgetful, fresh)
    # And the next sleep sees no more than the reading did.
    _, after_zeroed = read_stream(model, tokens, zeroed, SleepConfig(window=4, passes=passes))
    _, after_fresh = read_stream(
        model, tokens, model.initial_state(2), SleepConfig(window=4, passes=passes)
    )
    for actual, expected in zip(after_zeroed.fast_weights, after_fresh.fast_weights, strict=True):
        assert torch.equal(actual, expected)


def test_padding_anywhere_is_as_if_it_were_not_there(
    model: HybridLM, draw_tokens: DrawTokens
) -> None:
    """Three windows, each with padding of its own; padding counts towards their length."""
    tokens, mask = draw_tokens(1, 18), torch.ones(1, 18, dtype=torch.bool)
    mask[0, [0, 1, 8, 11, 14]] = False
    sleep = SleepConfig(window=6, passes=3)
    hidden, state = read_pieces(model, tokens, [2, 9, 10], sleep, mask)
    expected = model.initial_state(1)
    for window in range(0, 18, 6):
        piece = slice(window, window + 6)
        real = tokens[:, piece][:, mask[0, piece]]
        row, expected = read_stream(
            model, real, expected, SleepConfig(window=real.shape[1], passes=3)
        )
        assert_close(hidden[:, piece][:, mask[0, piece]], row, 1e-10)
    for actual, weights in zip(state.fast_weights, expected.fast_weights, strict=True):
        assert_close(actual, weights, 1e-10)
    assert state.counters.num_sleeps == 3


def test_memory_is_constant() -> None:
    config = ModelConfig(
        vocab_size=5,
        width=4,
        layers=("attn", "gdn"),
        mlp_hidden=4,
        attn_heads=1,
        delta_heads=1,
        key_dim=2,
        value_dim=2,
    )
    model, sleep = HybridLM(config), SleepConfig(window=2, passes=2)
    state = model.initial_state(1)
    held: dict[int, list[int]] = {}
    with torch.no_grad():
        while state.counters.num_sleeps < 1000:
            _, state = read_stream(model, torch.ones(1, 2, dtype=torch.int64), state, sleep)
            if state.counters.num_sleeps in (1, 1000):
                _, awake = read_stream(model, torch.ones(1, 1, dtype=torch.int64), state, sleep)
                held[state.counters.num_sleeps] = [
                    state.nbytes,
                    awake.nbytes,
                    storage_nbytes(state),
                    storage_nbytes(awake),
                ]
    assert held[1000] == held[1]
    assert state.counters.tokens_seen == 2000
    assert all(weights.isfinite().all() for weights in state.fast_weights)


def storage_nbytes(state: MemoryState) -> int:
    """Bytes that the state keeps alive, which views may make more than it shows."""
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    state.map(note)
    return sum(storages.values())


def test_no_tokens_change_nothing(model: HybridLM, draw_tokens: DrawTokens) -> None:
    _, state = model.read(draw_tokens(2, 3), model.initial_state(2))
    hidden, same = read_stream(model, draw_tokens(2, 0), state, SleepConfig(window=5))
    assert hidden.shape == (2, 0, 16)
    assert same is state
