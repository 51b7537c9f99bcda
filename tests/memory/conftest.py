"""Tiny models that read bytes, and sessions with them."""

from collections.abc import Callable

import pytest

from byte_tokenizer import ByteTokenizer
from slowwave.memory.session import Session
from slowwave.memory.talker import Talker
from slowwave.models.backbone import HybridLM
from slowwave.runtime.config import ChatFormat, Sampling
from slowwave.sleep.config import SleepConfig
from tiny_models import THREE_LAYERS

WINDOW = 12
MODEL = HybridLM(THREE_LAYERS, seed=1)
Start = Callable[[], Session]


@pytest.fixture
def talker() -> Talker:
    """What stores make sessions of."""
    return Talker(MODEL, ByteTokenizer(), SleepConfig(window=WINDOW, passes=2), ChatFormat())


@pytest.fixture
def start(talker: Talker) -> Start:
    """New sessions of one model; replies are drawn, so that they vary."""

    def make() -> Session:
        return talker.session(sampling=Sampling(temperature=1.0, top_k=40))

    return make


@pytest.fixture
def session(start: Start) -> Session:
    return start()
