"""The model that is measured: the sizes of the paper's Rule 110 model, over bytes."""

from __future__ import annotations

import torch
from torch import Tensor

from slowwave.model.config import ModelConfig
from slowwave.model.hybrid import HybridLM

MODEL = ModelConfig(
    vocab_size=256,
    width=256,
    layers=("attn", "gdn", "attn", "gdn"),
    mlp_hidden=688,
    attn_heads=4,
    delta_heads=4,
    key_dim=48,
    value_dim=96,
    max_beta=2.0,
)


def draw_tokens(model: HybridLM, count: int) -> Tensor:
    """One row of `count` random tokens, (1, count)."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, model.config.vocab_size, (1, count), generator=generator)
    return drawn.to(model.device)
