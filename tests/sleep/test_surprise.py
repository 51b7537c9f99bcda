"""Surprise against the loss of a model, in pieces."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from slowwave.models.backbone import HybridLM
from slowwave.sleep import surprise
from slowwave.sleep.surprise import measure_surprise


@pytest.mark.parametrize("piece", [1, 4, 256])
def test_surprise_is_the_loss_of_the_next_token(
    model: HybridLM,
    draw_tokens: Callable[..., Tensor],
    monkeypatch: pytest.MonkeyPatch,
    piece: int,
) -> None:
    monkeypatch.setattr(surprise, "PIECE", piece)
    tokens = draw_tokens(2, 9)
    hidden, _ = model.read(tokens, model.initial_state(2))
    logits = model.logits(hidden)[:, :-1]
    expected = F.cross_entropy(logits.mT, tokens[:, 1:], reduction="none")
    nats = measure_surprise(model, hidden, tokens)
    assert torch.allclose(nats[:, :-1], expected)
    assert (nats[:, -1] == 0).all()
