"""How little a model expected what it read."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from slowwave.models.backbone import HybridLM

PIECE = 256
"""Tokens whose logits are held at once."""


def measure_surprise(model: HybridLM, hidden: Tensor, tokens: Tensor) -> Tensor:
    """Nats of the token after each, (B, T) float32; 0 for the last one, whose next is not known.

    hidden: (B, T, D), what reading tokens (B, T) put out.
    """
    nats = [
        F.cross_entropy(model.logits(read).mT.float(), after, reduction="none")
        for read, after in zip(
            hidden[:, :-1].split(PIECE, dim=1), tokens[:, 1:].split(PIECE, dim=1), strict=True
        )
    ]
    return F.pad(torch.cat([hidden.new_zeros(len(tokens), 0), *nats], dim=1), (0, 1))
