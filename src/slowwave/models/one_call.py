"""A token through all blocks in one compiled call, where the processor, mixers and dtypes allow it.

`HybridLM.run` is the specification; tests hold one against the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slowwave.entries import CompactKeyValues
from slowwave.models.block import Block
from slowwave.models.config import ModelConfig
from slowwave.models.mixers.attention import Attention, LocalAttention
from slowwave.models.mixers.mixer import Context
from slowwave.models.mixers.recurrent import GatedDeltaNet
from slowwave.ops import native
from slowwave.ops.append import reserve
from slowwave.ops.cached_attention import list_parts
from slowwave.ops.linear import ONEDNN_ROWS
from slowwave.ops.norm import wide_dtype
from slowwave.state import FastWeights, KeyValues, LayerState, MemoryState

LETTERS = {Attention: "a", LocalAttention: "l", GatedDeltaNet: "g"}
"""The mixers that the call knows, by their names in it."""


def suits(blocks: Sequence[Block], hidden: Tensor, state: MemoryState, context: Context) -> bool:
    """Whether this is one token a row, in few rows, of which all is kept and nothing hidden."""
    rows, T, _ = hidden.shape
    if T != 1 or not 0 < rows < ONEDNN_ROWS or not context.keep_state:
        return False
    if state.delta is not None:
        return False
    if any(given is not None for given in (context.mask, context.key_mask, context.band)):
        return False
    if context.ridge is not None or context.watch is not None:
        return False
    if any(type(block.mixer) not in LETTERS or block.prime is not None for block in blocks):
        return False
    if not native.can_read(hidden):
        return False
    narrow = blocks[0].mlp.up.compute_dtype or hidden.dtype
    wide = hidden.dtype == wide_dtype(narrow) and narrow in native.DTYPES
    return wide and all(layer.narrow_dtype == narrow for layer in state.layers)


def read_token(
    sizes: ModelConfig,
    blocks: Sequence[Block],
    hidden: Tensor,
    state: MemoryState,
    context: Context,
    span: range,
) -> tuple[Tensor, list[LayerState]]:
    """As `HybridLM.run` of a span of blocks, without gradients: hidden, and the state's layers."""
    kinds = [LETTERS[type(blocks[i].mixer)] for i in span]
    traits, layers = sizes.traits, list(state.layers)
    caches: list[Tensor] = []
    recurrences: list[Tensor] = []
    memories: list[CompactKeyValues | None] = []
    for layer in layers[span.start : span.stop]:
        if isinstance(layer, KeyValues):
            caches += [reserve(layer.keys, 1), reserve(layer.values, 1)]
            memories.append(layer.compact)
        elif isinstance(layer, FastWeights):
            recurrences += [layer.weights, layer.conv_tail]
    hidden, written = torch.ops.slowwave.read_token(
        hidden,
        [] if context.rotary is None else list(context.rotary),
        [] if context.local_rotary is None else list(context.local_rotary),
        "".join(kinds),
        [weight for i in span for weight in blocks[i].weights()],
        caches,
        recurrences,
        _list_entries(memories),
        sizes.attn_heads,
        sizes.kv_heads,
        sizes.head_dim,
        traits.attn_scale,
        traits.local_window,
        traits.activation == "gelu",
        sizes.max_beta,
        traits.norm_eps,
        traits.out_norm_eps,
    )
    attention, recurrent, kept = iter(caches), iter(written), iter(memories)
    layers[span.start : span.stop] = [
        KeyValues(next(attention), next(attention), next(kept))
        if kind != "g"
        else FastWeights(next(recurrent), next(recurrent))
        for kind in kinds
    ]
    return hidden, layers


def _list_entries(memories: Sequence[CompactKeyValues | None]) -> list[Tensor | None]:
    """What `list_parts` gives of each layer, or as many times None; empty if none has any."""
    kept = [None if memory is None or memory.is_empty else memory for memory in memories]
    if not any(kept):
        return []
    parts = ([None] * 4 if each is None else list_parts(each) for each in kept)
    return [part for each in parts for part in each]
