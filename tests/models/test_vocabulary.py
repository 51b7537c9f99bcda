"""Token ids that the model does not know are refused before anything is read."""

from __future__ import annotations

import pytest
import torch

from slowwave.models.backbone import HybridLM
from slowwave.models.config import ModelConfig
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.stream import read_stream
from slowwave.sleep.unroll import unroll

MODEL = HybridLM(ModelConfig(vocab_size=5, width=16, attn_heads=2, mlp_hidden=16))


@pytest.mark.parametrize("wrong", [-1, 5, 9000])
def test_an_unknown_id_is_named(wrong: int) -> None:
    tokens = torch.tensor([[0, 4, wrong]])
    sentence = rf"tokens hold id {wrong}; use 0 to 4"
    with pytest.raises(ValueError, match=sentence):
        MODEL(tokens)
    with pytest.raises(ValueError, match=sentence):
        read_stream(MODEL, tokens, MODEL.initial_state(1), SleepConfig(window=2))
    with pytest.raises(ValueError, match=sentence):
        unroll(MODEL, tokens, torch.full_like(tokens, -100), SleepConfig(window=3))
    with pytest.raises(ValueError, match=sentence):
        MODEL.ask(tokens[:, None], MODEL.initial_state(1))


def test_an_empty_read_is_no_mistake() -> None:
    logits, _ = MODEL(torch.zeros(1, 0, dtype=torch.int64))
    assert logits.shape == (1, 0, 5)
