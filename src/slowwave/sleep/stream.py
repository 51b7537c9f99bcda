"""Reading an endless stream: sleep whenever the window is full."""

from __future__ import annotations

import torch
from torch import Tensor

from slowwave.models.backbone import HybridLM
from slowwave.sleep.awake import read_awake
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.consolidate import consolidate
from slowwave.sleep.schedule import cut_stream
from slowwave.state import MemoryState


def read_stream(
    model: HybridLM,
    tokens: Tensor,
    state: MemoryState,
    sleep: SleepConfig,
    *,
    mask: Tensor | None = None,
) -> tuple[Tensor, MemoryState]:
    """Reads tokens (B, T) of any number, sleeping on every window that they fill.

    mask: (B, T) bool or None, False is padding; padding counts towards the window's length.
    Returns (hidden (B, T, D) of the last wake pass, state); `model.logits` turns hidden into
    predictions.
    """
    hiddens = [state.window_hidden[:, :0]]
    for segment in cut_stream(tokens.shape[1], sleep, window_fill=state.window_fill):
        piece = slice(segment.start, segment.stop)
        piece_mask = None if mask is None else mask[:, piece]
        hidden, state = read_awake(model, tokens[:, piece], state, sleep, mask=piece_mask)
        hiddens.append(hidden)
        if segment.closes:
            state = consolidate(model, state, passes=segment.passes, sleep=sleep)
    return torch.cat(hiddens, dim=1), state
