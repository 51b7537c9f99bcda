"""A token through all blocks in one compiled call, against the blocks one by one."""

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from numerics import TOLERANCE, assert_close
from slowwave.entries import CompactKeyValues
from slowwave.models.backbone import HybridLM
from slowwave.models.block import Block
from slowwave.models.config import LayerType, ModelConfig, RopeScaling, Traits
from slowwave.models.mixers.mixer import Context, Watch
from slowwave.models.one_call import suits
from slowwave.ops.attention import Rope, rotation
from slowwave.state import KeyValues, MemoryState

SIZES = ModelConfig(
    vocab_size=11,
    width=16,
    layers=("gdn", "attn", "gdn"),
    mlp_hidden=24,
    attn_heads=4,
    attn_kv_heads=2,
    delta_heads=2,
    delta_value_heads=4,
    key_dim=4,
    value_dim=6,
    max_beta=2.0,
)
ORDERS: list[tuple[LayerType, ...]] = [
    ("gdn", "attn", "gdn"),
    ("attn",),
    ("gdn",),
    ("attn", "attn", "gdn"),
    ("gdn", "hebbian"),
]
ATTENTION: tuple[LayerType, ...] = ("attn", "local", "gdn", "local", "attn")
TRAITS = {
    "qwen2": Traits(qkv_bias=True, tied_embeddings=True, norm_eps=1e-5),
    "qwen3": Traits(qk_norm="head"),
    "gemma3": Traits(
        attn_norms="both",
        qk_norm="head",
        attn_scale=0.7,
        activation="gelu",
        local_window=3,
        local_rope_theta=100.0,
        embedding_scale=4.0,
        rope_scaling=RopeScaling(factor=8.0),
    ),
    "qwen3_5": Traits(qk_norm="head", attn_gate=True, rotary_share=0.5, local_window=4),
    "olmo_hybrid": Traits(qk_norm="all", attn_norms="after", rotary_share=0.0),
}
"""What families do otherwise, for two layers of each kind of attention."""


def read_one_by_one(model: HybridLM, tokens: Tensor) -> tuple[list[Tensor], MemoryState]:
    state = model.initial_state(len(tokens))
    hiddens: list[Tensor] = []
    for token in tokens.split(1, dim=1):
        hidden, state = model.read(token, state)
        hiddens.append(hidden)
    return hiddens, state


def tensors(state: MemoryState) -> list[Tensor]:
    return list(state.tensors().values())


@pytest.mark.parametrize("layers", ORDERS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("rows", [1, 3])
def test_tokens_are_read_as_block_by_block(
    rows: int, dtype: torch.dtype, layers: tuple[LayerType, ...]
) -> None:
    model = HybridLM(dataclasses.replace(SIZES, layers=layers)).double()
    tokens = torch.randint(11, (rows, 9), generator=torch.Generator().manual_seed(0))
    with torch.enable_grad():  # the compiled call has no gradients, so this takes the blocks
        expected, expected_state = read_one_by_one(model, tokens)
    if dtype != torch.float64:
        model = model.float()
    model.set_compute_dtype(dtype if dtype == torch.bfloat16 else None)
    with torch.no_grad():
        actual, state = read_one_by_one(model, tokens)
    tolerance = max(TOLERANCE[dtype], 1e-10)
    assert_close(torch.cat(actual, dim=1), torch.cat(expected, dim=1), tolerance)
    for mine, other in zip(tensors(state), tensors(expected_state), strict=True):
        assert_close(mine, other, tolerance)


@pytest.mark.parametrize("family", TRAITS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("rows", [1, 3])
def test_what_families_do_otherwise(
    monkeypatch: pytest.MonkeyPatch, rows: int, dtype: torch.dtype, family: str
) -> None:
    """Biases, norms of heads and after layers, gates, partial rotation, scales, near tokens."""
    model = in_dtype(draw_family(family), dtype)
    tokens = torch.randint(11, (rows, 9), generator=torch.Generator().manual_seed(0))
    with torch.enable_grad():
        expected, expected_state = read_one_by_one(model, tokens)
    monkeypatch.setattr(Block, "forward", refuse)
    with torch.no_grad():
        actual, state = read_one_by_one(model, tokens)
    tolerance = max(TOLERANCE[dtype], 1e-10)
    assert_close(torch.cat(actual, dim=1), torch.cat(expected, dim=1), tolerance)
    for mine, other in zip(tensors(state), tensors(expected_state), strict=True):
        assert_close(mine, other, tolerance)


@pytest.mark.parametrize("family", [None, "gemma3", "qwen3_5"])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_long_cache(dtype: torch.dtype, family: str | None) -> None:
    """Longer than what torch's own kernel reads, and than what "local" layers see."""
    model = in_dtype(HybridLM(SIZES).double() if family is None else draw_family(family), dtype)
    generator = torch.Generator().manual_seed(0)
    window, token = torch.randint(11, (2, 600), generator=generator).split([599, 1], dim=1)
    with torch.enable_grad():
        _, start = model.read(window, model.initial_state(2))
        expected, _ = model.read(token, start)
    with torch.no_grad():
        actual, _ = model.read(token, start.detach())
    assert_close(actual, expected, max(TOLERANCE[dtype], 1e-10))


def in_dtype(model: HybridLM, dtype: torch.dtype) -> HybridLM:
    model = model if dtype == torch.float64 else model.float()
    model.set_compute_dtype(dtype if dtype == torch.bfloat16 else None)
    return model


@pytest.mark.parametrize("family", ["qwen2", "gemma3"])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_compact_entries_are_seen(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, family: str
) -> None:
    """Some layers have entries, some heads none, and one layer lost them all."""
    model = in_dtype(draw_family(family), dtype)
    tokens = torch.randint(11, (2, 4), generator=torch.Generator().manual_seed(0))
    with torch.enable_grad():
        _, start = model.read(tokens[:, :3], model.initial_state(2))
        state = remember(start.detach(), {0: [[3, 0], [1, 4]], 4: [[0, 0], [0, 0]]})
        expected, expected_state = model.read(tokens[:, 3:], state)
        alone, _ = model.read(tokens[:, 3:], start)
    monkeypatch.setattr(Block, "forward", refuse)
    with torch.no_grad():
        actual, after = model.read(tokens[:, 3:], state)
    assert_close(actual, expected, max(TOLERANCE[dtype], 1e-10))
    assert (expected - alone).abs().max() > 0.1
    assert after.tensors().keys() == expected_state.tensors().keys()


def remember(state: MemoryState, lengths: dict[int, list[list[int]]]) -> MemoryState:
    """With entries in some layers of attention, so many of each stream's heads."""
    generator, layers = torch.Generator().manual_seed(2), list(state.layers)
    for i, counts in lengths.items():
        layer = layers[i]
        assert isinstance(layer, KeyValues)
        wide = torch.float64 if layer.keys.dtype == torch.float64 else torch.float32
        entries = CompactKeyValues.empty(
            2, max(map(sum, counts)), 2, 8, dtype=wide, device=torch.device("cpu")
        )
        for tensor in (entries.keys, entries.values, entries.bias):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
        entries.lengths.copy_(torch.tensor(counts))
        layers[i] = KeyValues(layer.keys, layer.values, entries)
    return dataclasses.replace(state, layers=tuple(layers))


def draw_family(name: str) -> HybridLM:
    """A model in float64 whose norms and biases are drawn too."""
    sizes = dataclasses.replace(SIZES, layers=ATTENTION, attn_head_dim=8, traits=TRAITS[name])
    model, generator = HybridLM(sizes), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "norm" in parameter_name or parameter_name.endswith("bias"):
                parameter += torch.randn(parameter.shape, generator=generator) / 3
    return model.double()


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("a block was called")


def test_the_blocks_are_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    model = HybridLM(SIZES)
    token = torch.zeros(1, 1, dtype=torch.int64)

    monkeypatch.setattr(Block, "forward", refuse)
    with torch.no_grad():
        model.read(token, model.initial_state(1))
        with pytest.raises(AssertionError, match="a block was called"):
            model.read(token.repeat(1, 2), model.initial_state(1))
        with pytest.raises(AssertionError, match="a block was called"):
            model.read(token, model.initial_state(1), mask=token == 0)


@pytest.mark.parametrize("kind", ["hebbian", "jet"])
def test_mixers_that_are_not_compiled_are_read_block_by_block(kind: LayerType) -> None:
    model = HybridLM(dataclasses.replace(SIZES, layers=("gdn", kind)))
    state = model.initial_state(1)
    with torch.no_grad():
        context = Context(
            rotation(torch.zeros(1, 1, dtype=torch.int64), Rope(8, 1e4), torch.float32)
        )
        token = torch.zeros(1, 1, 16)
        assert not suits(model._blocks, token, state, context)


def test_older_states_and_forks_stay_what_they_are() -> None:
    model = HybridLM(SIZES)
    one, two = torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.int64)
    with torch.no_grad():
        _, start = model.read(torch.arange(5)[None], model.initial_state(1))
        _, start = model.read(one, start)
        before = [tensor.clone() for tensor in tensors(start)]
        first = model.read(one, start)
        _, second = model.read(two, start)
        again = model.read(one, start)
    for tensor, kept in zip(tensors(start), before, strict=True):
        assert torch.equal(tensor, kept)
    assert torch.equal(first[0], again[0])
    for tensor, other in zip(tensors(first[1]), tensors(again[1]), strict=True):
        assert torch.equal(tensor, other)
    assert not torch.equal(second.fast_weights[0], first[1].fast_weights[0])


def test_tokens_of_a_buffer_that_is_filled_again() -> None:
    """What was read stays what it was when the caller puts the next tokens in the same place."""
    model = HybridLM(SIZES)
    buffer = torch.tensor([[3]])
    with torch.no_grad():
        _, state = model.read(buffer, model.initial_state(1))
        buffer[0, 0] = 5
        _, state = model.read(buffer, state)
    assert state.window_tokens.tolist() == [[3, 5]]


def test_asking_takes_no_room_from_the_window() -> None:
    model = HybridLM(SIZES)
    with torch.no_grad():
        _, state = model.read(torch.arange(5)[None], model.initial_state(1))
        _, state = model.read(torch.arange(5)[None], state)
        model.ask(torch.zeros(1, 1, 2, dtype=torch.int64), state)
        _, later = model.read(torch.arange(5)[None], state)
    (before, after) = (
        next(layer.keys for layer in each.layers if isinstance(layer, KeyValues))
        for each in (state, later)
    )
    assert before.data_ptr() == after.data_ptr()


def test_what_a_sleep_asks_for_is_read_block_by_block() -> None:
    """A fit of fast weights, and queries that are noted, are more than a token's reading."""
    model = HybridLM(SIZES)
    state, token = model.initial_state(1), torch.zeros(1, 1, 16)
    with torch.no_grad():
        for context in (Context(ridge=1.0), Context(watch=Watch())):
            assert not suits(model._blocks, token, state, context)
        assert suits(model._blocks, token, state, Context())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_float16_is_read_block_by_block(mode: Any) -> None:
    model = HybridLM(SIZES)
    model.set_compute_dtype(torch.float16)
    tokens = torch.arange(6)[None]
    with torch.enable_grad():
        expected, _ = read_one_by_one(model, tokens)
    with mode():
        actual, _ = read_one_by_one(model, tokens)
    assert_close(torch.cat(actual, dim=1), torch.cat(expected, dim=1), 2e-2)


def test_a_state_of_another_dtype_is_read_block_by_block() -> None:
    model = HybridLM(SIZES)
    state = model.initial_state(1)
    model.set_compute_dtype(torch.bfloat16)
    with torch.no_grad():
        hidden, _ = model.read(torch.zeros(1, 1, dtype=torch.int64), state)
    assert hidden.isfinite().all()


def test_copies_of_a_model_that_has_read() -> None:
    model = HybridLM(SIZES)
    model.set_compute_dtype(torch.bfloat16)
    tokens = torch.arange(6)[None]
    with torch.no_grad():
        expected, _ = model(tokens)
        twin = copy.deepcopy(model)
        assert torch.equal(twin(tokens)[0], expected)


def test_changed_weights_are_seen_in_bfloat16() -> None:
    """Casts are kept between calls, but not beyond a change of what they were made from."""
    model = HybridLM(SIZES)
    model.set_compute_dtype(torch.bfloat16)
    tokens = torch.arange(6)[None]
    with torch.no_grad():
        first, _ = model(tokens)
        assert torch.equal(model(tokens)[0], first)
        for name, parameter in model.named_parameters():
            if name.endswith("mlp.out.weight"):
                parameter.mul_(2)
        second, _ = model(tokens)
        fresh = HybridLM(SIZES)
        fresh.load_state_dict(model.state_dict())
        fresh.set_compute_dtype(torch.bfloat16)
        assert torch.equal(fresh(tokens)[0], second)
    assert not torch.equal(second, first)
