"""Deltas of a state act like changed weights, for their own stream alone."""

import copy
import dataclasses
from typing import cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slowwave.delta import LowRank, LowRankDelta
from slowwave.models.backbone import HybridLM
from slowwave.models.block import Block
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.consolidate import consolidate
from slowwave.state import MemoryState
from tiny_models import THREE_LAYERS

MODEL = HybridLM(THREE_LAYERS, seed=3).double()
SLEEP = SleepConfig(window=8, passes=2)


def draw_delta(batch_size: int, seed: int, model: HybridLM = MODEL) -> LowRankDelta:
    generator = torch.Generator().manual_seed(seed)
    delta = model.initial_delta(batch_size, 2).draw(generator)
    each = (
        LowRank(x.down, 0.3 * torch.randn(x.up.shape, generator=generator).to(x.up))
        for x in delta.layers
    )
    return LowRankDelta(tuple(each))


def begin(batch_size: int, delta: LowRankDelta | None) -> MemoryState:
    return dataclasses.replace(MODEL.initial_state(batch_size), delta=delta)


def merge(delta: LowRankDelta, row: int) -> HybridLM:
    """A model whose weights are changed."""
    model = copy.deepcopy(MODEL)
    with torch.no_grad():
        for block, change in zip(model.blocks, delta.layers, strict=True):
            cast(Block, block).mlp.out.weight += change.up[row] @ change.down[row]
    return model


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_each_stream_reads_with_its_own_delta(data: st.DataObject) -> None:
    """As a model does whose weights are changed: reading, sleeping, questions, at any cut."""
    rows = data.draw(st.integers(1, 3))
    delta = draw_delta(rows, data.draw(st.integers(0, 99)))
    tokens = torch.randint(256, (rows, 7), generator=torch.Generator().manual_seed(rows))
    cut, forks = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 2))
    questions = tokens[:, None, :3].repeat(1, forks, 1)
    with torch.no_grad():
        first, state = MODEL.read(tokens[:, :cut], begin(rows, delta))
        second, state = MODEL.read(tokens[:, cut:], state)
        slept = consolidate(MODEL, state, passes=2, sleep=SLEEP)
        asked = MODEL.ask(questions, slept)
        for row in range(rows):
            model = merge(delta, row)
            hidden, alone = model.read(tokens[row : row + 1], model.initial_state(1))
            torch.testing.assert_close(torch.cat([first, second], 1)[row], hidden[0])
            alone = consolidate(model, alone, passes=2, sleep=SLEEP)
            torch.testing.assert_close(asked[row], model.ask(questions[row : row + 1], alone)[0])
    assert slept.delta is state.delta is delta  # no call makes another of it


def test_gradients_reach_the_delta_alone() -> None:
    delta = draw_delta(1, 0).map(lambda tensor: tensor.requires_grad_())
    hidden, _ = MODEL.read(torch.arange(6)[None], begin(1, delta))
    learned = [*delta.tensors().values()]
    hidden.square().sum().backward(inputs=learned)
    assert all(tensor.grad is not None and tensor.grad.abs().max() > 0 for tensor in learned)
    assert all(weight.grad is None for weight in MODEL.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_delta_of_zeros_changes_nothing_and_none_keeps_the_compiled_token(dtype) -> None:
    """One token goes through the compiled call without a delta, and around it with one."""
    model = HybridLM(THREE_LAYERS, seed=4)
    model.set_compute_dtype(dtype)
    with torch.inference_mode():
        _, state = model.read(torch.arange(5)[None], model.initial_state(1))
        token = torch.tensor([[7]])
        plain, _ = model.read(token, state)
        zeros = dataclasses.replace(state, delta=model.initial_delta(1, 2))
        same, _ = model.read(token, zeros)
        other, _ = model.read(token, dataclasses.replace(state, delta=draw_delta(1, 1, model)))
    torch.testing.assert_close(
        same, plain, rtol=1e-4, atol=1e-2 if dtype == torch.bfloat16 else 1e-5
    )
    assert (other - plain).abs().max() > 0.05


def test_it_is_copied_and_counted_like_the_rest() -> None:
    delta = draw_delta(2, 5)
    state = begin(2, delta)
    assert state.nbytes - begin(2, None).nbytes == 3 * 2 * 2 * (24 + 16) * 8
    for name, tensor in state.repeat(2).tensors().items():
        if name.startswith("delta"):
            assert torch.equal(tensor[2:], state.row(1).tensors()[name].repeat(2, 1, 1))
    stacked = MemoryState.stack([state.row(0), state.row(1)])
    assert all(map(torch.equal, stacked.tensors().values(), state.tensors().values()))
    assert "delta.layers.2.up" in state.evict().tensors()
