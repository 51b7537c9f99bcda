"""Controls: passes that start from the same fast weights, of which only the last one writes."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from numerics import assert_close
from slowwave.models.backbone import HybridLM
from slowwave.sleep.config import BetweenPasses, Passes, SleepConfig
from slowwave.sleep.consolidate import consolidate
from slowwave.sleep.schedule import NO_LOSS
from slowwave.sleep.unroll import unroll
from slowwave.state import FastWeights, MemoryState
from stream_pieces import read_pieces

DrawTokens = Callable[..., Tensor]

T, WINDOW = 23, 5


def score(tokens: Tensor) -> Tensor:
    targets = torch.full_like(tokens, NO_LOSS)
    targets[:, -2:] = tokens[:, -2:]
    return targets


@pytest.mark.parametrize("between_passes", ["reset", "frozen"])
@pytest.mark.parametrize("passes", [1, 2, 4])
def test_passes_that_start_again(
    model: HybridLM, draw_tokens: DrawTokens, between_passes: BetweenPasses, passes: int
) -> None:
    """Under hard eviction: later passes see the weights of one place, and only the last writes."""
    tokens = draw_tokens(2, T)
    sleep = SleepConfig(
        window=WINDOW, passes=passes, consolidator=Passes(between_passes=between_passes)
    )
    weights = model.initial_state(2).fast_weights
    for start in range(0, T - T % WINDOW, WINDOW):
        first, after = model.read(tokens[:, start : start + WINDOW], fresh(model, weights))
        begun = weights if between_passes == "reset" else after.fast_weights
        weights, hidden = after.fast_weights, first
        for _ in range(1, passes):
            hidden, after = model.run(hidden, fresh(model, begun))
            weights = after.fast_weights
    rollout = unroll(model, tokens, score(tokens), sleep)
    state = read_pieces(model, tokens, [1, 7, 8, 20], sleep)[1]
    # The open window has been read from the weights that the last sleep left.
    _, expected = model.read(tokens[:, -(T % WINDOW) :], fresh(model, weights))
    for found in (rollout.state.fast_weights, state.fast_weights):
        for actual, other in zip(found, expected.fast_weights, strict=True):
            assert_close(actual, other, 1e-10)


def fresh(model: HybridLM, weights: tuple[Tensor, ...]) -> MemoryState:
    state, left = model.initial_state(2), list(weights)
    layers = tuple(
        FastWeights(left.pop(0), layer.conv_tail) if isinstance(layer, FastWeights) else layer
        for layer in state.layers
    )
    return dataclasses.replace(state, layers=layers)


def test_the_weights_at_a_windows_start_are_kept_where_needed(
    model: HybridLM, draw_tokens: DrawTokens
) -> None:
    tokens = draw_tokens(2, WINDOW + 2)
    sizes: dict[str, int] = {}
    for way in ("carry", "reset", "frozen"):
        sleep = SleepConfig(window=WINDOW, passes=2, consolidator=Passes(between_passes=way))
        awake = read_pieces(model, tokens, [3], sleep)[1]
        sizes[way] = awake.nbytes
        slept = read_pieces(model, tokens[:, :WINDOW], [3], sleep)[1]
        assert slept.window_start == ()
    recurrent = sum(s.nbytes for s in awake.layers if isinstance(s, FastWeights))
    assert sizes == {
        "carry": awake.nbytes,
        "reset": awake.nbytes + recurrent,
        "frozen": awake.nbytes,
    }
    _, state = model.read(tokens[:, :WINDOW], model.initial_state(2))
    with pytest.raises(
        ValueError, match=r"the window was read without noting the state it began with"
    ):
        consolidate(
            model, state, passes=2, sleep=SleepConfig(consolidator=Passes(between_passes="reset"))
        )
