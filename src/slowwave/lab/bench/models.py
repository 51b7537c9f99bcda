"""The model that is measured: the sizes of the paper's Rule 110 model, over bytes."""

from __future__ import annotations

import torch
from torch import Tensor

from slowwave.lab.bench.progress import LOG
from slowwave.models.backbone import HybridLM
from slowwave.models.config import ModelConfig
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.stream import read_stream
from slowwave.state import MemoryState

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


def draw_tokens(model: HybridLM, count: int, *, seed: int = 0) -> Tensor:
    """One row of `count` random tokens, (1, count)."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, model.config.vocab_size, (1, count), generator=generator)
    return drawn.to(model.device)


def read_random(model: HybridLM, sleep: SleepConfig, num_tokens: int) -> MemoryState:
    """The state after a stream of other random tokens in every window."""
    state = model.initial_state(1)
    for start in range(0, num_tokens, sleep.window):
        LOG.info("reading, N = %d: %d of %d tokens", sleep.passes, start, num_tokens)
        state = read_random_window(model, sleep, state, min(sleep.window, num_tokens - start))
    return state


def read_random_window(
    model: HybridLM, sleep: SleepConfig, state: MemoryState, count: int
) -> MemoryState:
    """Reads `count` tokens that depend on how many were read before."""
    tokens = draw_tokens(model, count, seed=state.counters.tokens_seen)
    return read_stream(model, tokens, state, sleep)[1]


def generate(model: HybridLM, state: MemoryState, sleep: SleepConfig, count: int) -> None:
    """Greedy decoding of `count` tokens."""
    token = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
    for _ in range(count):
        hidden, state = read_stream(model, token, state, sleep)
        token = model.logits(hidden).argmax(-1)


def moved_nbytes(model: HybridLM, state: MemoryState) -> int:
    """What must move for one token: all weights but the embeddings, and the state once."""
    embedding = model.embedding.weight
    weights = sum(parameter.nbytes for parameter in model.parameters()) - embedding.nbytes
    return weights + state.nbytes
