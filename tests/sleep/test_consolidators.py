"""What holds for every consolidator with every recurrent layer; `KINDS` names them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kernel_generators import vary_kernels
from numerics import assert_close
from slowwave.models.backbone import HybridLM
from slowwave.sleep.config import KINDS, TTT, Compact, Eviction, SleepConfig
from slowwave.sleep.consolidate import consolidate
from slowwave.sleep.consolidators.ridge import RidgeConsolidator
from slowwave.sleep.schedule import NO_LOSS
from slowwave.sleep.stream import read_stream
from slowwave.sleep.unroll import unroll
from slowwave.state import KeyValues, LayerState, MemoryState
from slowwave.storage.memory_file import load_memory, save_memory

WINDOW = 5
DrawTokens = Callable[..., Tensor]


@pytest.fixture(params=["all", "sliding"])
def eviction(request: pytest.FixtureRequest) -> Eviction:
    return request.param


@pytest.fixture(params=KINDS)
def sleep(request: pytest.FixtureRequest, eviction: Eviction) -> SleepConfig:
    kind = KINDS[request.param]
    passes = min(3, kind.most_passes)
    sinks = 1 if eviction == "sliding" else 0
    if kind is Compact and eviction == "sliding":
        pytest.skip("it keeps entries where sliding keeps tokens")
    consolidator = Compact(ratio=0.6, capacity=0.8, span=9) if kind is Compact else kind()
    return SleepConfig(
        window=WINDOW, passes=passes, consolidator=consolidator, eviction=eviction, sinks=sinks
    )


@pytest.fixture
def model(model: HybridLM, request: pytest.FixtureRequest) -> HybridLM:
    """That of other tests; with a prime MLP in its last block for a sleep that trains it."""
    if "sleep" not in request.fixturenames:
        return model
    if not isinstance(request.getfixturevalue("sleep").consolidator, TTT):
        return model
    primed = HybridLM(dataclasses.replace(model.config, prime_blocks=1), seed=0).double()
    vary_kernels(primed)
    return primed


def list_weights(state: MemoryState) -> list[Tensor]:
    """What of the state is weights: those of recurrent layers and of prime MLPs."""
    primes = (tensor for each in state.primes for tensor in each.tensors().values())
    return [*state.fast_weights, *primes]


def change_midterm(state: MemoryState, change: Callable[[Tensor], Tensor]) -> MemoryState:
    """The state with its mid-term memory changed: fast weights with their tails, and entries."""

    def change_layer(layer: LayerState) -> LayerState:
        if not isinstance(layer, KeyValues):
            return layer.map(change)
        compact = None if layer.compact is None else layer.compact.map(change)
        return dataclasses.replace(layer, compact=compact)

    return dataclasses.replace(state, layers=tuple(map(change_layer, state.layers)))


def forget(state: MemoryState) -> MemoryState:
    """The state without mid-term memory."""
    layers = (
        dataclasses.replace(layer, compact=None)
        if isinstance(layer, KeyValues)
        else layer.map(torch.zeros_like)
        for layer in state.layers
    )
    return dataclasses.replace(state, layers=tuple(layers), position=None)


@pytest.mark.parametrize("pieces", [[13], [1] * 13, [3, 7, 1, 2]])
def test_streaming_equals_unrolling(
    model: HybridLM, draw_tokens: DrawTokens, sleep: SleepConfig, pieces: list[int]
) -> None:
    tokens = draw_tokens(2, 13)
    with torch.no_grad():
        whole = unroll(model, tokens, torch.full_like(tokens, NO_LOSS), sleep)
        state, hiddens = model.initial_state(2), list[Tensor]()
        for piece in tokens.split(pieces, dim=1):
            hidden, state = read_stream(model, piece, state, sleep)
            hiddens.append(hidden)
    assert_close(torch.cat(hiddens, dim=1), whole.hidden, 1e-10)
    for name, tensor in state.tensors().items():
        assert_close(tensor.double(), whole.state.tensors()[name].double(), 1e-10)


def test_one_pass_is_plain_eviction(
    model: HybridLM, draw_tokens: DrawTokens, sleep: SleepConfig
) -> None:
    plain = SleepConfig(window=WINDOW, eviction=sleep.eviction, sinks=sleep.sinks)
    _, read = model.read(draw_tokens(2, WINDOW), model.initial_state(2))
    slept, expected = (
        consolidate(model, read, passes=1, sleep=each).tensors() for each in (sleep, plain)
    )
    assert all(torch.equal(slept[name], tensor) for name, tensor in expected.items())


def test_evicted_tokens_act_through_the_midterm_memory_alone(
    model: HybridLM, draw_tokens: DrawTokens, sleep: SleepConfig, eviction: Eviction
) -> None:
    if eviction == "sliding":
        pytest.skip("attention still sees tokens of slept windows")
    with torch.no_grad():
        _, state = read_stream(model, draw_tokens(2, 3 * WINDOW), model.initial_state(2), sleep)
        emptied = forget(state)
        told, fresh = (
            model.read(draw_tokens(2, 3, seed=1), each)[0]
            for each in (emptied, model.initial_state(2))
        )
    assert torch.equal(told, fresh)


def test_gradients_reach_slept_tokens_through_the_midterm_memory_alone(
    model: HybridLM, draw_tokens: DrawTokens, sleep: SleepConfig, eviction: Eviction
) -> None:
    """The slept window alone holds token 0, whose embedding tells whether a gradient comes."""
    told = torch.zeros(2, WINDOW, dtype=torch.int64)
    asked = 1 + draw_tokens(2, 3) % 9

    def grad_of_told(state: MemoryState) -> Tensor:
        hidden, _ = model.read(asked, state)
        model.zero_grad(set_to_none=True)
        hidden.square().sum().backward()
        grad = model.embedding.weight.grad
        assert grad is not None
        return grad[0]

    def read_told() -> MemoryState:
        return read_stream(model, told, model.initial_state(2), sleep)[1]

    assert grad_of_told(read_told()).abs().max() > 0
    if eviction == "all":
        loose = change_midterm(read_told(), Tensor.detach)
        assert grad_of_told(loose).abs().max() == 0


def test_memory_is_constant(model: HybridLM, draw_tokens: DrawTokens, sleep: SleepConfig) -> None:
    state, sizes = model.initial_state(1), list[int]()
    with torch.no_grad():
        for seed in range(6):
            _, state = read_stream(model, draw_tokens(1, WINDOW, seed), state, sleep)
            sizes.append(state.nbytes)
    assert len(set(sizes[2:])) == 1


def test_a_window_of_padding_leaves_the_midterm_memory_bit_identical(
    model: HybridLM, draw_tokens: DrawTokens, sleep: SleepConfig
) -> None:
    with torch.no_grad():
        _, state = read_stream(model, draw_tokens(2, WINDOW), model.initial_state(2), sleep)
        mask = torch.zeros(2, WINDOW, dtype=torch.bool)
        mask[0] = True
        _, after = read_stream(model, draw_tokens(2, WINDOW, seed=1), state, sleep, mask=mask)
    for before, slept in zip(list_weights(state), list_weights(after), strict=True):
        assert torch.equal(before[1], slept[1])
        assert not torch.equal(before[0], slept[0])


@pytest.mark.parametrize("count", [WINDOW, WINDOW + 2])
def test_saving_loading_and_going_on_is_bit_identical(
    model: HybridLM, draw_tokens: DrawTokens, sleep: SleepConfig, tmp_path: Path, count: int
) -> None:
    path = tmp_path / "state.safetensors"
    with torch.no_grad():
        _, state = read_stream(model, draw_tokens(1, count), model.initial_state(1), sleep)
        save_memory(path, state, model, tokenizer="bytes", sleep=sleep)
        loaded = load_memory(path, model, tokenizer="bytes", sleep=sleep)
        ends = [
            read_stream(model, draw_tokens(1, 9, seed=1), each, sleep)[1].tensors()
            for each in (state, loaded)
        ]
    assert all(torch.equal(ends[1][name], tensor) for name, tensor in ends[0].items())


def test_the_state_given_is_not_mutated(
    model: HybridLM, draw_tokens: DrawTokens, sleep: SleepConfig
) -> None:
    with torch.no_grad():
        tokens = draw_tokens(2, WINDOW)
        opened = read_stream(model, tokens[:, :2], model.initial_state(2), sleep)[1]
        copies = {name: tensor.clone() for name, tensor in opened.tensors().items()}
        read_stream(model, tokens[:, 2:], opened, sleep)
    assert all(torch.equal(opened.tensors()[name], copy) for name, copy in copies.items())


def test_ridge_writes_what_its_penalty_allows(model: HybridLM, draw_tokens: DrawTokens) -> None:
    """With a huge penalty a window leaves no more than the decay of what was there."""
    changes: list[Tensor] = []
    for penalty in (1e-3, 1.0, 1e6):
        config = KINDS["ridge"].from_dict({"penalty": penalty})
        sleep = SleepConfig.from_dict(
            {"window": WINDOW, "passes": 2, "consolidator": config.to_dict()}
        )
        assert RidgeConsolidator(sleep).penalty == penalty
        with torch.no_grad():
            _, state = read_stream(model, draw_tokens(2, WINDOW), model.initial_state(2), sleep)
        changes.append(torch.stack([weights.norm() for weights in state.fast_weights]))
    assert (changes[0] > changes[1]).all()
    assert (changes[1] > 100 * changes[2]).all()
