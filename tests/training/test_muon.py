"""Muon: torch's where the two coincide, and each of the matrices that a weight fuses by itself."""

from __future__ import annotations

import dataclasses
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from numerics import TOLERANCE, assert_close
from slowwave.models.backbone import HybridLM
from slowwave.models.config import LayerType, ModelConfig
from slowwave.models.linear import Linear
from slowwave.training.config import TrainConfig
from slowwave.training.optimizer import (
    COEFFICIENTS,
    ITERATIONS,
    Muon,
    make_optimizers,
    orthogonalize,
)

SHAPES = [(24, 16), (16, 24), (16, 16), (24, 16), (3, 16)]
SIZES = ModelConfig(
    vocab_size=5,
    width=12,
    layers=get_args(LayerType),
    mlp_hidden=20,
    attn_heads=4,
    attn_kv_heads=2,
    attn_head_dim=6,
    delta_heads=2,
    delta_value_heads=4,
    key_dim=6,
    value_dim=10,
)


def draw(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def train(
    weights: list[nn.Parameter], optimizer: torch.optim.Optimizer, gradients: list[list[Tensor]]
) -> list[Tensor]:
    """How far each weight has moved after one step for each list of gradients."""
    before = [weight.detach().clone() for weight in weights]
    for each in gradients:
        for weight, gradient in zip(weights, each, strict=True):
            weight.grad = gradient.clone()
        optimizer.step()
    return [weight.detach() - old for weight, old in zip(weights, before, strict=True)]


def test_singular_values_go_through_the_polynomial() -> None:
    matrices = [draw(*shape, seed=i, dtype=torch.float64) for i, shape in enumerate(SHAPES)]
    for matrix, found in zip(matrices, orthogonalize(matrices, torch.float64), strict=True):
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        values = values / values.norm()
        a, b, c = COEFFICIENTS
        for _ in range(ITERATIONS):
            values = a * values + b * values**3 + c * values**5
        assert_close(found, left @ values.diag() @ right, TOLERANCE[torch.float64])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_single_matrices_move_as_with_the_muon_of_torch(dtype: torch.dtype) -> None:
    """Torch's iterates in bfloat16, hence the tolerance."""
    ours, theirs = (
        [nn.Parameter(draw(*shape, seed=i)) for i, shape in enumerate(SHAPES)] for _ in range(2)
    )
    gradients = [[draw(*s, seed=10 * n + i) for i, s in enumerate(SHAPES)] for n in (1, 2, 3)]
    matrices = [(weight, [len(weight)]) for weight in ours]
    moved = train(ours, Muon(matrices, lr=0.1, weight_decay=0.3, dtype=dtype), gradients)
    expected = train(theirs, torch.optim.Muon(theirs, lr=0.1, weight_decay=0.3), gradients)
    for found, wanted in zip(moved, expected, strict=True):
        assert_close(found, wanted, TOLERANCE[torch.bfloat16])


@pytest.mark.parametrize("sizes", [(16, 16, 16), (40, 8, 8), (3, 3), (5, 30, 16)])
def test_a_fused_weight_moves_as_its_matrices_do_apart(sizes: tuple[int, ...]) -> None:
    whole = draw(sum(sizes), 16, seed=0)
    scale = torch.cat([torch.full((size, 1), 10.0**i) for i, size in enumerate(sizes)])
    fused = nn.Parameter(whole.clone())
    apart = [nn.Parameter(block.clone()) for block in whole.split(sizes)]
    gradients = [scale * draw(sum(sizes), 16, seed=seed) for seed in (1, 2, 3)]
    options = {"lr": 0.1, "weight_decay": 0.3, "dtype": torch.float32}
    (moved,) = train([fused], Muon([(fused, sizes)], **options), [[g] for g in gradients])
    separate = Muon([(weight, [len(weight)]) for weight in apart], **options)
    expected = torch.cat(train(apart, separate, [list(g.split(sizes)) for g in gradients]))
    assert_close(moved, expected, TOLERANCE[torch.float32])


def test_layers_say_which_matrices_they_fuse() -> None:
    """Attention: H = 4, Hkv = 2, Dh = 6. Recurrent: H = 2, G = 4, K = 6, V = 10. h = 20."""
    model = HybridLM(SIZES)
    fused = {
        name: module.sizes
        for name, module in model.named_modules()
        if isinstance(module, Linear) and len(module.sizes) > 1
    }
    recurrent = {"mixer.qkv": (12, 12, 40), "mixer.gates": (4, 4)}
    attention = {"mixer.qkv": (24, 12, 12)}
    mixers = {"attn": attention, "local": attention}
    expected = {
        f"blocks.{i}.{name}": sizes
        for i, kind in enumerate(SIZES.layers)
        for name, sizes in {"mlp.up": (20, 20), **mixers.get(kind, recurrent)}.items()
    }
    assert fused == expected


def test_training_takes_the_matrices_of_every_layer_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of the whole model moves each fused matrix as far as if it stood alone."""
    monkeypatch.setattr("slowwave.training.optimizer.iteration_dtype", lambda device: torch.float32)
    model = HybridLM(SIZES)
    config = TrainConfig(muon_lr=0.1, weight_decay=0.0)
    muon = make_optimizers(model, config)["muon"]
    weights = {
        name: module for name, module in model.blocks.named_modules() if isinstance(module, Linear)
    }
    before = {name: layer.weight.detach().clone() for name, layer in weights.items()}
    for i, layer in enumerate(weights.values()):
        layer.weight.grad = draw(*layer.weight.shape, seed=i)
    muon.step()
    for name, layer in weights.items():
        moved = layer.weight.detach() - before[name]
        assert layer.weight.grad is not None
        for block, gradient in zip(
            moved.split(layer.sizes), layer.weight.grad.split(layer.sizes), strict=True
        ):
            rows, columns = block.shape
            (direction,) = orthogonalize([gradient], torch.float32)
            expected = -0.1 * max(1, rows / columns) ** 0.5 * direction
            assert_close(block, expected, TOLERANCE[torch.float32])


def test_a_weight_without_a_gradient_stays_as_it_is() -> None:
    moved, frozen = nn.Parameter(draw(4, 4, seed=0)), nn.Parameter(draw(4, 4, seed=1))
    muon = Muon([(moved, [4]), (frozen, [4])], lr=0.1, weight_decay=0.5, dtype=torch.float32)
    before = frozen.detach().clone()
    moved.grad = draw(4, 4, seed=2)
    muon.step()
    assert torch.equal(frozen, before)
    assert frozen not in muon.state
    assert not torch.equal(moved, draw(4, 4, seed=0))


def test_momentum_is_kept_under_the_names_and_shapes_of_torch() -> None:
    """So that checkpoints of runs that were trained with torch's Muon can be resumed."""
    sizes = dataclasses.replace(SIZES, layers=("attn",))
    model = HybridLM(sizes)
    muon = make_optimizers(model, TrainConfig())["muon"]
    weight = model.get_parameter("blocks.0.mixer.qkv.weight")
    weight.grad = torch.ones_like(weight)
    muon.step()
    assert {key: value.shape for key, value in muon.state[weight].items()} == {
        "momentum_buffer": weight.shape
    }
