"""Tiny models that read bytes, and sessions with them."""

from collections.abc import Callable

import pytest

from byte_tokenizer import ByteTokenizer
from slowwave.generation.chat import ChatFormat
from slowwave.generation.config import Sampling
from slowwave.generation.model_folder import Talker
from slowwave.memory.session import Session
from slowwave.model.config import ModelConfig
from slowwave.model.hybrid import HybridLM
from slowwave.sleep.config import SleepConfig

WINDOW = 12
SIZES = ModelConfig(
    vocab_size=256,
    width=16,
    layers=("attn", "gdn", "gdn"),
    mlp_hidden=24,
    attn_heads=4,
    attn_kv_heads=2,
    delta_heads=2,
    delta_value_heads=4,
    key_dim=4,
    value_dim=6,
)
MODEL = HybridLM(SIZES, seed=1)
Start = Callable[[], Session]


@pytest.fixture
def talker() -> Talker:
    """What stores make sessions of."""
    return Talker(MODEL, ByteTokenizer(), SleepConfig(window=WINDOW, passes=2), ChatFormat())


@pytest.fixture
def start() -> Start:
    """New sessions of one model; replies are drawn, so that they vary."""

    def make() -> Session:
        return Session(
            MODEL,
            ByteTokenizer(),
            SleepConfig(window=WINDOW, passes=2),
            chat=ChatFormat(),
            sampling=Sampling(temperature=1.0, top_k=40),
        )

    return make


@pytest.fixture
def session(start: Start) -> Session:
    return start()
