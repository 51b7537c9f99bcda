"""A token through all blocks in one compiled call, where the processor, mixers and dtypes allow it.

`HybridLM.run` is the specification; tests hold one against the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slowwave.models.block import Block
from slowwave.models.config import ModelConfig, Traits
from slowwave.models.mixers.attention import Attention
from slowwave.models.mixers.mixer import Context
from slowwave.models.mixers.recurrent import GatedDeltaNet
from slowwave.ops import native
from slowwave.ops.append import reserve
from slowwave.ops.linear import ONEDNN_ROWS
from slowwave.ops.norm import wide_dtype
from slowwave.state import FastWeights, KeyValues, LayerState, MemoryState

LETTERS = {Attention: "a", GatedDeltaNet: "g"}
"""The mixers that the call knows, by their names in it."""


def suits(
    sizes: ModelConfig,
    blocks: Sequence[Block],
    hidden: Tensor,
    state: MemoryState,
    context: Context,
) -> bool:
    """Whether this is one token a row, in few rows, of which all is kept and nothing hidden."""
    if not _is_plain(sizes.traits) or context.rotary is None:
        return False
    rows, T, _ = hidden.shape
    if T != 1 or not 0 < rows < ONEDNN_ROWS or not context.keep_state:
        return False
    if any(given is not None for given in (context.mask, context.key_mask, context.band)):
        return False
    if any(isinstance(layer, KeyValues) and layer.compact for layer in state.layers):
        return False
    if any(type(block.mixer) not in LETTERS for block in blocks) or not native.can_read(hidden):
        return False
    narrow = blocks[0].mlp.up.compute_dtype or hidden.dtype
    wide = hidden.dtype == wide_dtype(narrow) and narrow in native.DTYPES
    return wide and all(layer.narrow_dtype == narrow for layer in state.layers)


def _is_plain(traits: Traits) -> bool:
    """Whether a family's blocks compute what ours do: constants, angles and head aside."""
    return (
        traits.attn_norms == "before"
        and traits.qk_norm == "none"
        and traits.activation == "silu"
        and traits.rotary_share == 1
        and traits.attn_scale is None
        and not (traits.qkv_bias or traits.attn_gate)
    )


def read_token(
    sizes: ModelConfig,
    blocks: Sequence[Block],
    hidden: Tensor,
    state: MemoryState,
    context: Context,
    span: range,
) -> tuple[Tensor, list[LayerState]]:
    """As `HybridLM.run` of a span of blocks, without gradients: hidden, and the state's layers."""
    assert context.rotary is not None
    kinds = [LETTERS[type(blocks[i].mixer)] for i in span]
    layers = list(state.layers)
    caches: list[Tensor] = []
    recurrences: list[Tensor] = []
    for layer in layers[span.start : span.stop]:
        if isinstance(layer, KeyValues):
            caches += [reserve(layer.keys, 1), reserve(layer.values, 1)]
        elif isinstance(layer, FastWeights):
            recurrences += [layer.weights, layer.conv_tail]
    hidden, written = torch.ops.slowwave.read_token(
        hidden,
        *context.rotary,
        "".join(kinds),
        [weight for i in span for weight in blocks[i].weights()],
        caches,
        recurrences,
        sizes.attn_heads,
        sizes.kv_heads,
        sizes.head_dim,
        sizes.max_beta,
        sizes.traits.norm_eps,
        sizes.traits.out_norm_eps,
    )
    attention, recurrent = iter(caches), iter(written)
    layers[span.start : span.stop] = [
        KeyValues(next(attention), next(attention))
        if kind == "a"
        else FastWeights(next(recurrent), next(recurrent))
        for kind in kinds
    ]
    return hidden, layers
