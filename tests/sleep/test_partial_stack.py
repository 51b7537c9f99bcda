"""A prelude is read once, the core N times, a coda once after the last pass."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from numerics import assert_close
from slowwave.models.backbone import HybridLM
from slowwave.models.block import Block
from slowwave.models.config import LayerType
from slowwave.models.mixers.mixer import Context
from slowwave.models.mixers.recurrent import GatedDeltaNet
from slowwave.ops.attention import Rope, rotation
from slowwave.sleep.config import BetweenPasses, Eviction, KeptCache, Passes, SleepConfig
from slowwave.sleep.consolidate import consolidate
from slowwave.sleep.schedule import NO_LOSS
from slowwave.sleep.stream import read_stream
from slowwave.sleep.unroll import answer_forks, unroll
from slowwave.state import FastWeights, LayerState, MemoryState
from stream_pieces import read_pieces

DrawTokens = Callable[..., Tensor]

T, WINDOW = 18, 5
LAYERS: tuple[LayerType, ...] = ("gdn", "attn", "gdn", "attn", "attn", "gdn")


def make(model: HybridLM, prelude: int, coda: int) -> HybridLM:
    sizes = dataclasses.replace(model.config, layers=LAYERS, prelude=prelude, coda=coda)
    return HybridLM(sizes, seed=1).double()


def apply(model: HybridLM, x: Tensor, states: list[LayerState], places: range) -> Tensor:
    """Some blocks over a whole window, whose states are replaced in the list."""
    rotary = rotation(torch.arange(x.shape[1])[None], Rope(4, model.config.rope_theta), x.dtype)
    for i in places:
        block = model.blocks[i]
        assert isinstance(block, Block)
        x, states[i] = block(x, states[i], Context(rotary))
    return x


@pytest.mark.parametrize(("prelude", "coda"), [(1, 0), (0, 1), (2, 2), (1, 3)])
@pytest.mark.parametrize("passes", [1, 2, 4])
@pytest.mark.parametrize("between_passes", ["carry", "reset", "frozen"])
def test_each_part_is_read_as_often_as_it_should(
    model: HybridLM,
    draw_tokens: DrawTokens,
    prelude: int,
    coda: int,
    passes: int,
    between_passes: BetweenPasses,
) -> None:
    model, tokens = make(model, prelude, coda), draw_tokens(2, T)
    end = len(LAYERS) - coda
    before, core, after = range(prelude), range(prelude, end), range(end, len(LAYERS))
    states, outs = list(model.initial_state(2).layers), list[Tensor]()
    for chunk in tokens.split(WINDOW, dim=1):
        opened = list(states)
        hidden = apply(model, apply(model, model.embed(chunk), states, before), states, core)
        outs.append(apply(model, hidden, states, after))
        first = [state.evict() for state in states]
        for _ in range(1, passes if chunk.shape[1] == WINDOW else 1):
            begun = {"carry": states, "reset": opened, "frozen": first}[between_passes]
            for i in core:
                states[i] = begun[i].evict()
            hidden = apply(model, hidden, states, core)
        if passes > 1 and chunk.shape[1] == WINDOW:
            for i in after:
                states[i] = opened[i]
            apply(model, hidden, states, after)
        states = [state.evict() for state in states] if chunk.shape[1] == WINDOW else states
    sleep = SleepConfig(
        window=WINDOW, passes=passes, consolidator=Passes(between_passes=between_passes)
    )
    targets = torch.full_like(tokens, NO_LOSS)
    targets[:, -2:] = 1
    rollout = unroll(model, tokens, targets, sleep)
    assert_close(rollout.hidden, torch.cat(outs, dim=1), 1e-10)
    expected = [state.weights for state in states if isinstance(state, FastWeights)]
    spared = unroll(model, tokens, targets, sleep, keep_hidden=False).state
    for state in (rollout.state, spared):
        for actual, weights in zip(state.fast_weights, expected, strict=True):
            assert_close(actual, weights, 1e-10)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.sets(st.integers(1, T - 1)),
    parts=st.sampled_from([(1, 0), (0, 1), (2, 2), (1, 3)]),
    eviction=st.sampled_from(["all", "sliding"]),
    passes=st.integers(1, 3),
    padded=st.booleans(),
)
def test_streaming_equals_unrolling(
    model: HybridLM,
    draw_tokens: DrawTokens,
    cuts: set[int],
    parts: tuple[int, int],
    eviction: Eviction,
    passes: int,
    padded: bool,
) -> None:
    model, tokens = make(model, *parts), draw_tokens(2, T)
    mask = torch.arange(2 * T).view(2, T) % 4 != 1 if padded else None
    targets = torch.full_like(tokens, NO_LOSS)
    targets[:, -2] = 1
    sleep = SleepConfig(window=WINDOW, passes=passes, eviction=eviction)
    with torch.no_grad():
        rollout = unroll(model, tokens, targets, sleep, mask=mask)
    hidden, state = read_pieces(model, tokens, sorted(cuts), sleep, mask)
    real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    assert_close(hidden[real], rollout.hidden[real], 1e-10)
    for actual, expected in zip(state.fast_weights, rollout.state.fast_weights, strict=True):
        assert_close(actual, expected, 1e-10)


@pytest.mark.parametrize("eviction", ["all", "sliding"])
def test_one_pass_is_the_whole_stack(
    model: HybridLM, draw_tokens: DrawTokens, eviction: Eviction
) -> None:
    tokens, sleep = draw_tokens(2, T), SleepConfig(window=WINDOW, eviction=eviction)
    expected, whole = read_pieces(make(model, 0, 0), tokens, [3, 4], sleep)
    hidden, state = read_pieces(make(model, 2, 2), tokens, [3, 4], sleep)
    assert_close(hidden, expected, 1e-12)
    for actual, weights in zip(state.fast_weights, whole.fast_weights, strict=True):
        assert_close(actual, weights, 1e-12)


@pytest.mark.parametrize("kept_cache", ["last_pass", "first_pass"])
def test_a_coda_that_slides_reads_the_last_passes_on_end(
    model: HybridLM, draw_tokens: DrawTokens, kept_cache: KeptCache
) -> None:
    """Its convolution goes on from window to window over what pass N put out."""
    model, tokens = make(model, 1, 1), draw_tokens(2, 3 * WINDOW)
    seen: list[Tensor] = []

    def run(hidden: Tensor, state: MemoryState, **options: Any) -> tuple[Tensor, MemoryState]:
        if options.get("part") == "coda":
            seen.append(hidden)
        return model.run(hidden, state, **options)

    sleep = SleepConfig(
        window=WINDOW, passes=2, eviction="sliding", consolidator=Passes(kept_cache=kept_cache)
    )
    state = unroll(model, tokens, torch.full_like(tokens, NO_LOSS), sleep, run=run).state
    block = model.blocks[-1]
    assert isinstance(block, Block) and isinstance(block.mixer, GatedDeltaNet)
    slept = block.mixer_norm(torch.cat(seen[1::2], dim=1))
    _, expected = block.mixer(slept, block.mixer.initial_state(2), Context())
    actual = state.layers[-1]
    assert isinstance(actual, FastWeights)
    assert_close(actual.weights, expected.weights, 1e-10)
    assert_close(actual.conv_tail, expected.conv_tail, 1e-10)


def test_questions_pass_all_parts(model: HybridLM, draw_tokens: DrawTokens) -> None:
    model, sleep = make(model, 1, 2), SleepConfig(window=WINDOW, passes=3)
    _, state = read_pieces(model, draw_tokens(2, 12), [], sleep)
    questions = draw_tokens(2, 4, seed=1).view(2, 2, 2)
    targets = torch.ones_like(questions)
    logits = answer_forks(model, questions, targets, state, sleep=sleep)
    apart = [
        unroll(model, questions[:, fork], targets[:, fork], sleep, state).logits.unflatten(
            0, (2, 2)
        )
        for fork in range(2)
    ]
    assert_close(logits, torch.stack(apart, dim=1).flatten(0, 2), 1e-10)


def test_memory_is_constant(model: HybridLM) -> None:
    model, sleep = make(model, 1, 2), SleepConfig(window=3, passes=2)
    state, tokens, sizes = model.initial_state(1), torch.ones(1, 3, dtype=torch.int64), {}
    with torch.no_grad():
        for count in range(1, 51):
            _, state = read_stream(model, tokens, state, sleep)
            _, awake = read_stream(model, tokens[:, :2], state, sleep)
            sizes[count] = (state.nbytes, awake.nbytes)
    assert sizes[50] == sizes[1]
    assert state.window_start == ()


def test_what_does_not_go_together_is_refused(model: HybridLM, draw_tokens: DrawTokens) -> None:
    model, tokens = make(model, 1, 1), draw_tokens(2, WINDOW)
    with pytest.raises(ValueError, match=r"wake_passes is 2 with model\.prelude 1 and model\.coda"):
        read_stream(model, tokens, model.initial_state(2), SleepConfig(wake_passes=2))
    sleep = SleepConfig(window=WINDOW, passes=2, consolidator=Passes(recirculate="embedding"))
    with pytest.raises(ValueError, match=r"recirculate is embedding with model\.prelude 1"):
        read_stream(model, tokens, model.initial_state(2), sleep)
    _, state = model.read(tokens, model.initial_state(2))
    with pytest.raises(ValueError, match=r"without noting the state it began with, to which its"):
        consolidate(model, state, passes=2)
