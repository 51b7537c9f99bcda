"""Between the state of a model and the heads that a sleep chooses from.

Heads are the KV heads of all layers that keep entries, layer by layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from slowwave.entries import CompactKeyValues, Entries
from slowwave.models.backbone import HybridLM, find_rope
from slowwave.models.block import Block
from slowwave.models.mixers.attention import Attention
from slowwave.models.mixers.mixer import Watch
from slowwave.ops.norm import wide_dtype
from slowwave.sleep.consolidators.entry_choice import Candidates, Reading
from slowwave.sleep.positions import turn_back, window_positions
from slowwave.state import KeyValues, MemoryState


def find_keepers(model: HybridLM) -> dict[int, Attention]:
    """The layers that keep entries, by their place in the model."""
    mixers = enumerate(cast(Block, block).mixer for block in model.blocks)
    return {i: each for i, each in mixers if isinstance(each, Attention) and each.keeps_entries}


def find_real(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """(B, T) bool: which tokens are no padding."""
    return torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask


def list_candidates(model: HybridLM, read: MemoryState, i: int) -> list[Candidates]:
    """What the heads have of the stream at place `i`."""
    stream, W = read.row(i), read.window_fill
    real = find_real(stream.window_tokens, stream.window_mask)[0]
    place = (stream.tokens_seen - W + torch.arange(W, device=real.device))[real]
    position = window_positions(stream)[0, real]
    listed: list[Candidates] = []
    for at, mixer in find_keepers(model).items():
        layer = _cache(stream, at)
        wide = wide_dtype(layer.keys.dtype)
        keys, values = (each[0, real].to(wide).unbind(1) for each in (layer.keys, layer.values))
        new = [Entries.of_tokens(*each, position, place) for each in zip(keys, values, strict=True)]
        old = [each.take(place[:0]) for each in new]
        if layer.compact is not None:
            old = layer.compact.list_heads()
        metrics = mixer.value_metrics().detach().to(wide)
        for each in zip(old, new, metrics, strict=True):
            listed.append(Candidates(*each, mixer.score_scale))
    return listed


def list_readings(
    model: HybridLM,
    watch: Watch,
    real: Tensor,
    weights: Tensor,
    i: int,
    *,
    of_window: bool,
    seen: Sequence[Entries | None],
) -> list[Reading]:
    """What T tokens of the stream at place `i` asked each head when they were read.

    watch: what was seen of that pass. real: (T,) bool, False is padding. weights: (T,), how much
    the query of each counts, not at all where it is 0. of_window: whether they are the window.
    seen: of each head, see `Reading`.
    """
    weights = weights[real]
    asking = weights.nonzero()[:, 0]
    places = asking if of_window else None
    listed: list[Reading] = []
    layers = zip(watch.queries, watch.log_sums, watch.stream_norms, strict=True)
    for (queries, log_sums, norms), mixer in zip(layers, find_keepers(model).values(), strict=True):
        heads = (mixer.num_kv_heads, -1)
        asked = queries[i, real][asking].unflatten(1, heads).permute(1, 2, 0, 3)
        sums = log_sums[i, real][asking].unflatten(1, heads).permute(1, 2, 0)
        for each in zip(asked, sums, strict=True):
            listed.append(Reading(*each, places, weights[asking], norms[i], seen[len(listed)]))
    return listed


def put_entries(
    model: HybridLM, state: MemoryState, streams: Sequence[Sequence[Entries]]
) -> MemoryState:
    """The state with the heads' entries of each of its streams."""
    left = [iter(heads) for heads in streams]
    layers = list(state.layers)
    for at, mixer in find_keepers(model).items():
        rows = [[next(heads) for _ in range(mixer.num_kv_heads)] for heads in left]
        compact = CompactKeyValues.stack([CompactKeyValues.of_stream(heads) for heads in rows])
        layers[at] = dataclasses.replace(_cache(state, at), compact=compact)
    return dataclasses.replace(state, layers=tuple(layers))


def turn_stream(model: HybridLM, heads: Sequence[Entries], excess: int) -> list[Entries]:
    """The heads of a stream with positions less by `excess`; see `turn_back`."""
    rope, left = find_rope(model.config), iter(heads)
    turned: list[Entries] = []
    for mixer in find_keepers(model).values():
        turned += turn_back([next(left) for _ in range(mixer.num_kv_heads)], excess, rope)
    return turned


def _cache(state: MemoryState, at: int) -> KeyValues:
    layer = state.layers[at]
    assert isinstance(layer, KeyValues)
    return layer
