"""How little a model expected what it read."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from slowwave.models.backbone import HybridLM
from slowwave.ops.norm import log_sum

PIECE = 256
"""Tokens whose logits are held at once."""


def measure_surprise(model: HybridLM, hidden: Tensor, tokens: Tensor) -> Tensor:
    """Nats of the token after each, (B, T) float32; 0 for the last one, whose next is not known.

    hidden: (B, T, D), what reading tokens (B, T) put out.
    """
    nats: list[Tensor] = []
    pieces = hidden[:, :-1].split(PIECE, dim=1), tokens[:, 1:, None].split(PIECE, dim=1)
    for read, after in zip(*pieces, strict=True):
        logits = model.logits(read)
        nats.append(log_sum(logits) - logits.gather(-1, after)[..., 0])
    return F.pad(torch.cat([hidden.new_zeros(len(tokens), 0), *nats], dim=1), (0, 1))
