"""Tiny float64 hybrids with grouped heads everywhere, one a recurrent layer, and random tokens."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kernel_generators import vary_kernels
from slowwave.models.backbone import HybridLM
from slowwave.models.config import ModelConfig
from tiny_models import RECURRENT

VOCAB = 11


@pytest.fixture(params=RECURRENT)
def model(request: pytest.FixtureRequest) -> HybridLM:
    config = ModelConfig(
        vocab_size=VOCAB,
        width=16,
        layers=(request.param, "attn", request.param),
        mlp_hidden=24,
        attn_heads=4,
        attn_kv_heads=2,
        delta_heads=2,
        delta_value_heads=4,
        key_dim=4,
        value_dim=6,
        max_beta=2.0,
    )
    model = HybridLM(config, seed=0).double()
    vary_kernels(model)
    return model


@pytest.fixture
def draw_tokens() -> Callable[..., Tensor]:
    """Tokens (B, T), other ones for another seed."""

    def draw(B: int, T: int, seed: int = 0) -> Tensor:
        return torch.randint(VOCAB, (B, T), generator=torch.Generator().manual_seed(seed))

    return draw
