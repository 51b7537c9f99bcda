"""One sleep: N passes, then nothing is left of the window but the fast weights."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from kernel_generators import vary_kernels
from numerics import assert_close
from slowwave.models.backbone import HybridLM
from slowwave.models.config import Part
from slowwave.sleep.config import Passes, Recirculate, SleepConfig
from slowwave.sleep.consolidate import consolidate
from slowwave.state import FastWeights, KeyValues, MemoryState

DrawTokens = Callable[..., Tensor]


@pytest.fixture
def awake(model: HybridLM, draw_tokens: DrawTokens) -> MemoryState:
    """A window of six tokens, read in two pieces so that tails and caches are in use."""
    tokens = draw_tokens(2, 6)
    _, state = model.read(tokens[:, :4], model.initial_state(2))
    return model.read(tokens[:, 4:], state)[1]


def with_weights(state: MemoryState, weights: tuple[Tensor, ...]) -> MemoryState:
    left = list(weights)
    layers = tuple(
        FastWeights(left.pop(0), layer.conv_tail) if isinstance(layer, FastWeights) else layer
        for layer in state.layers
    )
    return dataclasses.replace(state, layers=layers)


def reread(model: HybridLM, hidden: Tensor, tokens: Tensor, way: Recirculate) -> Tensor:
    return {
        "hidden": hidden,
        "normed": model.final_norm(hidden),
        "normed+embedding": model.final_norm(hidden) + model.embedding.weight[tokens],
        "embedding": model.embedding.weight[tokens],
    }[way]


@pytest.mark.parametrize("way", ["hidden", "normed", "normed+embedding", "embedding"])
@pytest.mark.parametrize("passes", [1, 2, 3, 4])
def test_each_pass_reads_what_the_last_put_out_from_the_weights_it_left(
    model: HybridLM, awake: MemoryState, passes: int, way: Recirculate
) -> None:
    slept = consolidate(
        model, awake, passes=passes, sleep=SleepConfig(consolidator=Passes(recirculate=way))
    )
    hidden, weights = awake.window_hidden, awake.fast_weights
    for _ in range(passes - 1):
        fresh = with_weights(model.initial_state(2), weights)
        hidden, after = model.run(reread(model, hidden, awake.window_tokens, way), fresh)
        weights = after.fast_weights
    for actual, expected in zip(slept.fast_weights, weights, strict=True):
        assert_close(actual, expected, 1e-12)


@pytest.mark.parametrize("passes", [1, 3])
def test_the_window_is_gone_and_counted(model: HybridLM, awake: MemoryState, passes: int) -> None:
    slept = consolidate(model, awake, passes=passes)
    assert slept.window_fill == 0
    assert slept.cache_nbytes == 0
    assert slept.window_mask is None
    assert (slept.counters.tokens_seen, slept.counters.num_sleeps) == (6, 1)
    for layer in slept.layers:
        if isinstance(layer, FastWeights):
            assert not layer.conv_tail.any()
        else:
            assert isinstance(layer, KeyValues)
            assert layer.keys.shape[1] == layer.values.shape[1] == 0


def test_one_pass_is_plain_eviction(model: HybridLM, awake: MemoryState) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("a pass was run")

    slept = consolidate(model, awake, passes=1, run=never)
    for actual, expected in zip(slept.fast_weights, awake.fast_weights, strict=True):
        assert torch.equal(actual, expected)


def test_further_passes_write(model: HybridLM, awake: MemoryState) -> None:
    weights = [consolidate(model, awake, passes=n).fast_weights for n in (1, 2, 3)]
    for fewer, more in itertools.pairwise(weights):
        assert all(not torch.allclose(a, b) for a, b in zip(fewer, more, strict=True))


def test_on_pass_sees_the_state_after_every_pass(model: HybridLM, awake: MemoryState) -> None:
    seen: dict[int, MemoryState] = {}
    consolidate(model, awake, passes=3, on_pass=seen.__setitem__)
    assert list(seen) == [1, 2, 3]
    for n, state in seen.items():
        expected = consolidate(model, awake, passes=n)
        assert state.window_fill == 0
        for weights, other in zip(state.fast_weights, expected.fast_weights, strict=True):
            assert_close(weights, other, 1e-12)


@pytest.mark.parametrize(
    "places", ["attn r", "r attn", "r r attn attn", "attn attn"], ids=lambda places: places
)
def test_the_last_pass_leaves_what_a_whole_pass_would(
    places: str, model: HybridLM, draw_tokens: DrawTokens
) -> None:
    """It ends with the last write; what comes out after that, nobody would read."""
    layers = tuple(model.config.layers[0] if place == "r" else "attn" for place in places.split())
    model = HybridLM(dataclasses.replace(model.config, layers=layers)).double()
    vary_kernels(model)
    _, state = model.read(draw_tokens(2, 3), model.initial_state(2))
    hidden = model.embed(draw_tokens(2, 5, 1))
    _, whole = model.run(hidden, state)
    _, cut = model.run(hidden, state, evicts=True)
    for weights, other in zip(cut.fast_weights, whole.fast_weights, strict=True):
        assert_close(weights, other, 1e-12)


def test_run_replaces_the_models_own(model: HybridLM, awake: MemoryState) -> None:
    calls: list[tuple[Tensor | None, bool]] = []

    def run(
        hidden: Tensor, state: MemoryState, *, mask: Tensor | None, evicts: bool, part: Part
    ) -> tuple[Tensor, MemoryState]:
        calls.append((mask, evicts))
        return model.run(hidden, state, mask=mask, evicts=evicts, part=part)

    consolidate(model, awake, passes=4, run=run)
    assert calls == [(None, False), (None, False), (None, True)]


def test_padding_is_unseen_in_every_pass(model: HybridLM, draw_tokens: DrawTokens) -> None:
    tokens = draw_tokens(1, 8)
    mask = torch.tensor([[False, True, True, False, True, False, True, False]])
    _, padded = model.read(tokens, model.initial_state(1), mask=mask)
    _, plain = model.read(tokens[:, mask[0]], model.initial_state(1))
    for actual, expected in zip(
        consolidate(model, padded, passes=3).fast_weights,
        consolidate(model, plain, passes=3).fast_weights,
        strict=True,
    ):
        assert_close(actual, expected, 1e-10)


def test_a_window_of_padding_leaves_the_fast_weights_bit_identical(
    model: HybridLM, draw_tokens: DrawTokens
) -> None:
    _, state = model.read(draw_tokens(2, 5), model.initial_state(2))
    before = consolidate(model, state, passes=2)
    nothing = torch.zeros(2, 4, dtype=torch.bool)
    _, padded = model.read(draw_tokens(2, 4, seed=1), before, mask=nothing)
    after = consolidate(model, padded, passes=3)
    for actual, expected in zip(after.fast_weights, before.fast_weights, strict=True):
        assert torch.equal(actual, expected)


def test_a_poisoned_neighbour_stays_in_its_row(model: HybridLM, awake: MemoryState) -> None:
    expected = consolidate(model, awake, passes=3)
    row = torch.tensor([True, False])

    def poison(tensor: Tensor) -> Tensor:
        return torch.where(row.view(-1, *[1] * (tensor.dim() - 1)), tensor, torch.nan)

    poisoned = dataclasses.replace(
        awake,
        layers=tuple(layer.map(poison) for layer in awake.layers),
        window_hidden=poison(awake.window_hidden),
    )
    slept = consolidate(model, poisoned, passes=3)
    for actual, weights in zip(slept.fast_weights, expected.fast_weights, strict=True):
        assert actual[1].isnan().any()
        assert torch.equal(actual[0], weights[0])


def test_the_state_given_is_not_mutated(model: HybridLM, awake: MemoryState) -> None:
    tensors: list[Tensor] = []
    awake.map(lambda tensor: (tensors.append(tensor), tensor)[1])
    before = [tensor.clone() for tensor in tensors]
    consolidate(model, awake, passes=3)
    for tensor, copy in zip(tensors, before, strict=True):
        assert torch.equal(tensor, copy)


def test_long_loops_stay_finite(model: HybridLM, awake: MemoryState) -> None:
    model.float()
    state = awake.map(lambda x: x.float() if x.is_floating_point() else x)
    with torch.no_grad():
        slept = consolidate(model, state, passes=64)
    assert all(weights.isfinite().all() for weights in slept.fast_weights)


def test_impossible_sleeps_are_refused(model: HybridLM, awake: MemoryState) -> None:
    with pytest.raises(ValueError, match=r"passes is 0; use 1 \(plain eviction\) to 64"):
        consolidate(model, awake, passes=0)
    with pytest.raises(ValueError, match=r"the window is empty, .* read tokens first"):
        consolidate(model, consolidate(model, awake, passes=1), passes=2)
