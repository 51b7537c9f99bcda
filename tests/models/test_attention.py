"""The attention layer: its cache, cut anywhere, shared by forks."""

import pytest
import torch
from torch import Tensor

from numerics import assert_close
from slowwave.models.config import ModelConfig
from slowwave.models.mixers.attention import Attention
from slowwave.models.mixers.mixer import Context
from slowwave.ops.attention import Rope, Rotation, rotate, rotation, windowed_attention
from slowwave.state import KeyValues


@pytest.fixture
def layer() -> Attention:
    torch.manual_seed(0)
    sizes = ModelConfig(width=12, attn_heads=4, attn_kv_heads=2, attn_head_dim=6)
    return Attention(sizes).double()


def draw(B: int, T: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(B, T, 12, generator=generator, dtype=torch.float64)


def turn(positions: Tensor) -> Rotation:
    return rotation(positions[None], Rope(6, 100.0), torch.float64)


def read(
    layer: Attention, x: Tensor, state: KeyValues, *, keep_state: bool = True
) -> tuple[Tensor, KeyValues]:
    W = state.keys.shape[1]
    rotary = turn(torch.arange(W, W + x.shape[1]))
    out, after = layer(x, state, Context(rotary, keep_state=keep_state))
    return out, after


def test_sections_of_the_projection_are_queries_keys_and_values(layer: Attention) -> None:
    x = draw(2, 5)
    q, k, v = (x @ part.T for part in layer.qkv.weight.split([24, 12, 12]))
    q, k, v = (part.unflatten(-1, (-1, 6)) for part in (q, k, v))
    q, k = (rotate(part, turn(torch.arange(5))) for part in (q, k))
    expected = windowed_attention(q, k, v).flatten(2) @ layer.out.weight.T
    out, state = read(layer, x, layer.initial_state(2))
    assert_close(out, expected, 1e-12)
    assert_close(state.keys, k, 1e-12)
    assert_close(state.values, v, 1e-12)


@pytest.mark.parametrize("cuts", [[1], [2, 3], [1, 2, 3, 4, 5, 6, 7, 8]])
def test_pieces_equal_one_call(layer: Attention, cuts: list[int]) -> None:
    x = draw(2, 9)
    expected, whole = read(layer, x, layer.initial_state(2))
    state = layer.initial_state(2)
    outs: list[Tensor] = []
    for piece in x.tensor_split(cuts, dim=1):
        out, state = read(layer, piece, state)
        outs.append(out)
    assert_close(torch.cat(outs, dim=1), expected, 1e-12)
    assert_close(state.keys, whole.keys, 1e-12)
    assert_close(state.values, whole.values, 1e-12)


def test_forks_share_a_cache_that_stays_as_it_is(layer: Attention) -> None:
    _, state = read(layer, draw(2, 5), layer.initial_state(2))
    questions = draw(6, 2)
    out, after = read(layer, questions, state, keep_state=False)
    copies = state.map(lambda tensor: tensor.repeat_interleave(3, dim=0))
    expected, _ = read(layer, questions, copies)
    assert_close(out, expected, 1e-12)
    assert after is state
