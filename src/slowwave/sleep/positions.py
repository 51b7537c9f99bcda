"""Rotary positions of compact entries, which never run out.

Rotary attention sees differences of positions alone. So once windows would begin past the span, all
entries are turned back by what they would be past it, and the next window begins there again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slowwave.entries import PINNED, Entries
from slowwave.ops.attention import Rope, exact_rotation, rotate
from slowwave.state import MemoryState


def count_positions(state: MemoryState) -> Tensor:
    """(B,) int64: the rotary position after the last token of the open window."""
    if state.window_mask is None:
        count = torch.full_like(state.tokens_seen, state.window_fill)
    else:
        count = state.window_mask.sum(1)
    return count if state.position is None else state.position + count


def window_positions(state: MemoryState) -> Tensor:
    """(B, W) int64: the rotary position of every token in the open window; padding has none."""
    W = state.window_fill
    if state.window_mask is None:
        places = torch.arange(W, device=state.tokens_seen.device).expand(state.batch_size, W)
    else:
        places = state.window_mask.cumsum(1) - 1
    return places if state.position is None else state.position[:, None] + places


def turn_back(heads: Sequence[Entries], excess: int, rope: Rope | None) -> list[Entries]:
    """The heads of one layer with positions less by `excess`.

    Pinned entries stay, and none is turned to where they are or before. So an entry is turned a few
    times, until it is as near to them as it can be, and its key does not wear.
    """
    positions = [head.position.masked_fill(head.score != PINNED, -1) for head in heads]
    floor = 1 + max((int(each.max()) for each in positions if len(each)), default=-1)
    return [_turn(head, excess, floor, rope) for head in heads]


def _turn(head: Entries, excess: int, floor: int, rope: Rope | None) -> Entries:
    moved = torch.minimum(head.position, (head.position - excess).clamp(min=floor))
    moved = torch.where(head.score == PINNED, head.position, moved)
    keys = head.keys if rope is None else turn_keys(head.keys, moved - head.position, rope)
    return head._replace(keys=keys, position=moved)


def turn_keys(keys: Tensor, offset: Tensor, rope: Rope) -> Tensor:
    """Keys (E, Dh) at rotary positions that are more by offset (E,)."""
    turned, plain = keys.split([rope.size, keys.shape[1] - rope.size], dim=1)
    rotary = exact_rotation(offset[None], rope, keys.dtype)
    return torch.cat([rotate(turned[None, :, None], rotary)[0, :, 0], plain], dim=1)
