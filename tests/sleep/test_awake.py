"""Looping at wake: what predicts is read M times, and still knows nothing of what follows."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from numerics import assert_close
from slowwave.models.backbone import HybridLM
from slowwave.sleep.config import Eviction, Passes, Recirculate, SleepConfig
from slowwave.sleep.consolidate import consolidate
from slowwave.sleep.consolidators.passes import reread
from slowwave.sleep.schedule import NO_LOSS
from slowwave.sleep.stream import read_stream
from slowwave.sleep.unroll import answer_forks, unroll
from stream_pieces import read_pieces

DrawTokens = Callable[..., Tensor]

T, WINDOW = 18, 5
EVICTIONS: tuple[Eviction, ...] = ("all", "sliding", "none")


def score(tokens: Tensor, *positions: int) -> Tensor:
    targets = torch.full_like(tokens, NO_LOSS)
    targets[:, positions] = (tokens[:, positions] + 1) % 11
    return targets


@pytest.mark.parametrize("recirculate", ["hidden", "normed", "normed+embedding"])
@pytest.mark.parametrize("wake_passes", [1, 2, 3])
@pytest.mark.parametrize("passes", [1, 3])
def test_each_pass_starts_where_the_window_does(
    model: HybridLM,
    draw_tokens: DrawTokens,
    passes: int,
    wake_passes: int,
    recirculate: Recirculate,
) -> None:
    tokens = draw_tokens(2, 8)
    sleep = SleepConfig(
        window=WINDOW,
        passes=passes,
        wake_passes=wake_passes,
        consolidator=Passes(recirculate=recirculate),
    )
    _, state = model.read(tokens[:, :WINDOW], model.initial_state(2))
    start = consolidate(model, state, passes=passes, sleep=sleep)
    hidden = model.embed(tokens[:, WINDOW:])
    for m in range(wake_passes):
        if m > 0:
            hidden = reread(model, hidden, tokens[:, WINDOW:], recirculate)
        hidden, _ = model.run(hidden, start)
    targets = score(tokens, 6, 7)
    rollout = unroll(model, tokens, targets, sleep, keep_hidden=False)
    assert_close(rollout.logits, model.logits(hidden[:, 1:]).flatten(0, 1), 1e-10)
    # What is slept on is pass 1, however often it was read.
    plain = dataclasses.replace(sleep, wake_passes=1)
    once = unroll(model, tokens, targets, plain, keep_hidden=False).state
    for actual, expected in zip(rollout.state.fast_weights, once.fast_weights, strict=True):
        assert torch.equal(actual, expected)
    assert torch.equal(rollout.state.window_hidden, once.window_hidden)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.sets(st.integers(1, T - 1)),
    eviction=st.sampled_from(EVICTIONS),
    wake_passes=st.integers(2, 3),
    padded=st.booleans(),
)
def test_streaming_equals_unrolling(
    model: HybridLM,
    draw_tokens: DrawTokens,
    cuts: set[int],
    eviction: Eviction,
    wake_passes: int,
    padded: bool,
) -> None:
    tokens = draw_tokens(2, T)
    mask = torch.arange(2 * T).view(2, T) % 4 != 1 if padded else None
    passes = 1 if eviction == "none" else 2
    sleep = SleepConfig(window=WINDOW, passes=passes, eviction=eviction, wake_passes=wake_passes)
    rollout = unroll(model, tokens, score(tokens, T - 2), sleep, mask=mask)
    hidden, state = read_pieces(model, tokens, sorted(cuts), sleep, mask)
    real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    assert_close(hidden[real], rollout.hidden[real], 1e-10)
    assert_close(model.logits(hidden[:, T - 2]), rollout.logits, 1e-10)
    for actual, expected in zip(state.fast_weights, rollout.state.fast_weights, strict=True):
        assert_close(actual, expected, 1e-10)
    assert len(state.wake_layers) == wake_passes - 1


@pytest.mark.parametrize("eviction", EVICTIONS)
def test_no_prediction_knows_what_follows_it(
    model: HybridLM, draw_tokens: DrawTokens, eviction: Eviction
) -> None:
    """A later pass must not start from fast weights that already hold later tokens."""
    tokens = draw_tokens(2, T)
    sleep = SleepConfig(window=WINDOW, eviction=eviction, wake_passes=3, loss_windows="sleep_after")
    before = unroll(model, tokens, tokens, sleep).logits.unflatten(0, (2, T))
    for place in (2, 4, 5, 16):
        changed = tokens.clone()
        changed[:, place] = (changed[:, place] + 1) % 11
        after = unroll(model, changed, tokens, sleep).logits.unflatten(0, (2, T))
        assert_close(after[:, :place], before[:, :place], 1e-12)
        assert not torch.allclose(after[:, place:], before[:, place:])


@pytest.mark.parametrize("eviction", EVICTIONS)
@pytest.mark.parametrize("num_tokens", [WINDOW, 12])
def test_questions_are_read_as_often(
    model: HybridLM, draw_tokens: DrawTokens, eviction: Eviction, num_tokens: int
) -> None:
    """Asked of a slept state or of an open window, as if they came next."""
    tokens, sleep = (
        draw_tokens(2, num_tokens),
        SleepConfig(window=WINDOW, eviction=eviction, wake_passes=3),
    )
    state = unroll(model, tokens, torch.full_like(tokens, NO_LOSS), sleep, keep_hidden=False).state
    questions = draw_tokens(2, 12, seed=1).view(2, 4, 3)
    targets = torch.full_like(questions, NO_LOSS)
    targets[:, :, -1] = 1
    logits = answer_forks(model, questions, targets, state, sleep=sleep)
    apart = torch.stack(
        [
            unroll(model, questions[:, fork], targets[:, fork], sleep, state).logits
            for fork in range(4)
        ],
        dim=1,
    )
    assert_close(logits, apart.flatten(0, 1), 1e-10)
    once = model.logits(model.ask(questions, state)[targets != NO_LOSS])
    assert not torch.allclose(logits, once)
    changed = torch.cat([questions[..., :2], (questions[..., 2:] + 1) % 11], dim=-1)
    targets = targets.roll(-1, dims=-1)
    before = answer_forks(model, questions, targets, state, sleep=sleep)
    after = answer_forks(model, changed, targets, state, sleep=sleep)
    assert_close(after, before, 1e-12)


def test_gradients_flow_through_wake_passes(model: HybridLM, draw_tokens: DrawTokens) -> None:
    tokens = draw_tokens(2, 8)
    tokens[:, 1] = 10
    sleep = SleepConfig(window=WINDOW, passes=2, wake_passes=2)
    loss = unroll(model, tokens, score(tokens, 7), sleep).logits.logsumexp(-1).sum()
    (gradient,) = torch.autograd.grad(loss, model.embedding.weight)
    assert gradient[10].abs().min() > 0


def test_memory_is_constant(model: HybridLM) -> None:
    sleep, tokens = SleepConfig(window=3, wake_passes=3), torch.ones(1, 3, dtype=torch.int64)
    state, sizes = model.initial_state(1), {}
    with torch.no_grad():
        for count in range(1, 101):
            _, state = read_stream(model, tokens, state, sleep)
            _, awake = read_stream(model, tokens[:, :2], state, sleep)
            sizes[count] = (state.nbytes, awake.nbytes)
    assert sizes[100] == sizes[1]
    assert state.wake_layers == ()


def test_windows_read_otherwise_are_refused(model: HybridLM, draw_tokens: DrawTokens) -> None:
    _, state = model.read(draw_tokens(2, 3), model.initial_state(2))
    with pytest.raises(ValueError, match=r"wake_passes is 2, but the open window of 3 tokens was"):
        read_stream(model, draw_tokens(2, 1), state, SleepConfig(window=WINDOW, wake_passes=2))
