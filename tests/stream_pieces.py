"""Reading a stream in pieces, as tests of streaming do."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from slowwave.models.backbone import HybridLM
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.stream import read_stream
from slowwave.state import MemoryState


def read_pieces(
    model: HybridLM,
    tokens: Tensor,
    cuts: Sequence[int],
    sleep: SleepConfig,
    mask: Tensor | None = None,
) -> tuple[Tensor, MemoryState]:
    """Tokens (B, T), cut before each place in `cuts`; returns what `read_stream` would at once."""
    state = model.initial_state(tokens.shape[0])
    hiddens: list[Tensor] = []
    with torch.no_grad():
        for start, stop in itertools.pairwise([0, *cuts, tokens.shape[1]]):
            piece_mask = None if mask is None else mask[:, start:stop]
            hidden, state = read_stream(model, tokens[:, start:stop], state, sleep, mask=piece_mask)
            hiddens.append(hidden)
    return torch.cat(hiddens, dim=1), state
