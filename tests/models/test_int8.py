"""A model with int8 weights reads what the exact one does, nearly; and is not trained."""

import dataclasses

import pytest
import torch
from torch import Tensor

from numerics import assert_close, relative_rmse
from slowwave.models.backbone import HybridLM
from slowwave.models.block import Block
from slowwave.models.config import ModelConfig, Traits
from slowwave.models.int8 import Int8Linear, quantize_
from slowwave.models.linear import Linear
from slowwave.storage.checkpoint import fingerprint_model

SIZES = ModelConfig(
    vocab_size=50,
    width=72,
    layers=("attn", "gdn", "local", "attn"),
    mlp_hidden=100,
    attn_heads=4,
    attn_kv_heads=2,
    attn_head_dim=16,
    delta_heads=2,
    key_dim=8,
    value_dim=8,
    traits=Traits(qkv_bias=True, attn_gate=True, local_window=5),
)
TIED = dataclasses.replace(SIZES, traits=Traits(tied_embeddings=True, qk_norm="head"))
WORST = 0.03
"""Relative RMSE of the logits of these models against float32; 0.005 to 0.024 were seen
with four seeds."""


def draw_models(sizes: ModelConfig) -> tuple[HybridLM, HybridLM]:
    """The model in float32, and in int8."""
    exact, quantized = HybridLM(sizes), HybridLM(sizes)
    for model in (exact, quantized):
        bias = torch.Generator().manual_seed(1)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.data.normal_(generator=bias)
    quantize_(quantized)
    return exact, quantized


def draw_tokens(rows: int = 2) -> Tensor:
    return torch.randint(50, (rows, 40), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sizes", [SIZES, TIED])
@torch.no_grad()
def test_logits_are_close_to_those_of_float32(sizes: ModelConfig) -> None:
    exact, quantized = draw_models(sizes)
    expected, _ = exact(draw_tokens())
    actual, _ = quantized(draw_tokens())
    assert actual.dtype == torch.float32
    assert 1e-4 < relative_rmse(actual, expected) < WORST


@pytest.mark.parametrize("sizes", [SIZES, TIED])
@torch.no_grad()
def test_is_the_float32_model_of_the_same_numbers(sizes: ModelConfig) -> None:
    """Whatever the pieces that tokens come in: nothing but the weights is rounded."""
    exact, quantized = draw_models(sizes)
    for mine, other in zip(exact.modules(), quantized.modules(), strict=True):
        if isinstance(mine, Linear):
            assert isinstance(other, Int8Linear)
            mine.weight.copy_(other.narrow_weight())
    exact.embedding.weight.copy_(quantized.embedding(torch.arange(50)))
    tokens, state = draw_tokens(), quantized.initial_state(2)
    expected, expected_state = exact(tokens)
    pieces: list[Tensor] = []
    for piece in tokens.split([20, 1, 1, 3, 15], dim=1):
        logits, state = quantized(piece, state)
        pieces.append(logits)
    assert_close(torch.cat(pieces, dim=1), expected, 1e-5)
    for name, tensor in state.tensors().items():
        assert_close(tensor, expected_state.tensors()[name], 1e-5)


@torch.no_grad()
def test_a_token_is_read_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    _, quantized = draw_models(SIZES)
    _, state = quantized.read(draw_tokens(), quantized.initial_state(2))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a block was called")

    monkeypatch.setattr(Block, "forward", refuse)
    quantized.read(draw_tokens()[:, :1], state)


def test_weights_take_little_more_than_a_quarter() -> None:
    exact, quantized = draw_models(dataclasses.replace(SIZES, width=256, mlp_hidden=512))
    nbytes = [sum(each.nbytes for each in m.state_dict().values()) for m in (exact, quantized)]
    assert nbytes[1] < 0.31 * nbytes[0]
    assert exact.num_parameters == quantized.num_parameters


def test_it_is_another_model_to_a_memory_file() -> None:
    exact, quantized = draw_models(SIZES)
    again = draw_models(SIZES)[1]
    assert fingerprint_model(quantized) == fingerprint_model(again) != fingerprint_model(exact)


def test_training_is_refused() -> None:
    _, quantized = draw_models(SIZES)
    with pytest.raises(ValueError, match="int8 weights computes no gradients"):
        quantized(draw_tokens())
