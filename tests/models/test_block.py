"""A block adds its mixer and its feed-forward layer to the residual stream."""

import torch
import torch.nn.functional as F

from numerics import assert_close
from slowwave.models.block import Block, GatedMLP
from slowwave.models.config import ModelConfig
from slowwave.models.mixers.attention import Attention
from slowwave.models.mixers.mixer import Context
from slowwave.ops.attention import Rope, Rotation, rotation


def test_swiglu_gates_the_second_half_by_the_first() -> None:
    torch.manual_seed(0)
    layer = GatedMLP(6, 10, "silu").double()
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    gate, value = (x @ half.T for half in layer.up.weight.split(10))
    assert_close(layer(x), (F.silu(gate) * value) @ layer.out.weight.T, 1e-12)


def turn(num_tokens: int, dtype: torch.dtype) -> Rotation:
    return rotation(torch.arange(num_tokens)[None], Rope(4, 100.0), dtype)


def test_block_is_pre_norm_with_two_residuals() -> None:
    torch.manual_seed(0)
    block = Block(ModelConfig(width=8, mlp_hidden=12, attn_heads=2), "attn").double()
    mixer = block.mixer
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    rotary, state = turn(5, torch.float64), mixer.initial_state(2)
    out, _ = block(x, state, Context(rotary))
    mixed, _ = mixer(block.mixer_norm(x), state, Context(rotary))
    expected = x + mixed
    expected = expected + block.mlp(block.mlp_norm(expected))
    assert_close(out, expected, 1e-12)


def test_residual_stream_keeps_its_dtype_in_bfloat16() -> None:
    torch.manual_seed(0)
    block = Block(ModelConfig(width=8, mlp_hidden=12, attn_heads=2), "attn")
    mixer = block.mixer
    assert isinstance(mixer, Attention)
    for linear in (mixer.qkv, mixer.out, block.mlp.up, block.mlp.out):
        linear.compute_dtype = torch.bfloat16
    context = Context(turn(5, torch.float32))
    out, state = block(torch.randn(2, 5, 8), mixer.initial_state(2), context)
    assert out.dtype == torch.float32
    assert state.keys.dtype == torch.bfloat16
