"""How much memory a training step needs, predicted from sizes; torch-free.

What autograd keeps of one pass over T tokens that follow W in the window, carried ones included
where eviction slides, per row (letters as in `slowwave.state`, h the hidden width of the feed-
forward layer, s the bytes of a number in the compute dtype, 4 or 2; numbers that are always float32
have 4). In every layer:

    norms           2 (8 + s) T D + 8 T    what goes in, what is scaled, what the products take
    feed-forward    4 s T h                gate and value, SiLU of the gate, their product

in an attention layer:

    tokens          2 s T H Dh             turned queries, what was read
    window          2 s (W + T) H Dh       keys and values, repeated for their query heads
    weights         4 T (W + T) H          and s more each for their bfloat16 copy; longer windows
                                           than 64 go through a fused kernel, which keeps neither
                                           these nor repeated heads, but 4 T H

and in a recurrent layer, C = 2 H K + G V:

    convolution     s (T + w - 1) C        its input and the tail before it
    inputs          8 T H K + s T G V      normed keys and queries, values
    reads           (2 s + 16) T G V       what was read, its norm and gate, what the product takes;
                                           in bfloat16 one wide copy more, 4 T G V
    gates           24 T G
    state           4 G K V                at the start of every chunk

with the operators that are compiled for a CPU; without them these layers keep more. A Jet layer,
which convolves C = G V channels by kernels of their own, has for its convolution

    projected       s T (2 H K + G V)      queries, keys and values
    wide keys       8 T H (K + 1)          what is normed, and one over its norm
    convolution     s (2 T + w - 1) C      its input behind the tail, its output
    kernels         s T (w C + 2 C / 8)    and the hidden units that made them

Where a token is scored, a wide norm and its product, 12 D, and 8 bytes a word of the vocabulary:
its logits and their log-probabilities.

Beside them 4 bytes a parameter for the weights, 4 for gradients, 4 more for what Muon keeps of the
blocks' matrices and 8 for what AdamW keeps of embeddings and head, and in bfloat16 a copy of the
blocks' matrices for every pass. Norms and gates are too few to count. With checkpointed
activations a pass keeps its input, 4 T D, and the states 4 G K V; one pass at a time is computed
again, and keys and values that slide along are left out. torch.compile keeps less: what is cheap
to compute it computes again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from slowwave.evaluation.flops import CHUNK_SIZE, PAPER, generator_weights, generator_width
from slowwave.evaluation.passes import Fill, list_passes
from slowwave.models.config import LayerType, ModelConfig, Part
from slowwave.sleep.config import SleepConfig

if TYPE_CHECKING:
    from slowwave.sleep.schedule import Segment

WIDE = 4
SHORT_WINDOW = 64


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes of one training step."""

    parameters: int
    """Weights, their gradients, and what the optimizer remembers of them."""
    kept: int
    """What autograd keeps between the forward and the backward pass."""
    recomputed: int
    """What it keeps of the one pass that is being computed again; 0 without checkpoints."""

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.parameters + self.kept + self.recomputed


def predict_memory(
    model: ModelConfig,
    segments: Sequence[Segment],
    *,
    rows: int,
    bfloat16: bool,
    checkpoint_activations: bool,
    num_scored: int = 0,
    sleep: SleepConfig = PAPER,
) -> TrainingMemory:
    """A step over `rows` streams without a mask, cut like `segments`, without torch.compile.

    num_scored: tokens with loss in the whole batch; 0 where they are too few to count. sleep: what
    stays cached, and the wake passes.
    """
    matrices, tables = _count_matrices(model), 2 * model.vocab_size * model.width
    passes = list(list_passes(model, segments, sleep, Fill(0), keep_hidden=False))
    inside = [
        rows
        * kept_nbytes(
            model,
            each.num_tokens,
            each.cached,
            bfloat16=bfloat16,
            evicts=each.evicts,
            part=each.part,
        )
        + (2 * matrices if bfloat16 else 0)
        for each in passes
    ]
    parameters = 3 * WIDE * matrices + 4 * WIDE * tables
    scored = num_scored * WIDE * (3 * model.width + 2 * model.vocab_size)
    if not checkpoint_activations:
        return TrainingMemory(parameters=parameters, kept=scored + sum(inside), recomputed=0)
    between = sum(rows * _boundary_nbytes(model, each.num_tokens) for each in passes)
    return TrainingMemory(parameters=parameters, kept=scored + between, recomputed=max(inside))


def kept_nbytes(
    model: ModelConfig,
    num_tokens: int,
    window_fill: int,
    *,
    bfloat16: bool,
    evicts: bool,
    part: Part = "all",
) -> int:
    """What one pass over `num_tokens` tokens that follow `window_fill` keeps for one row.

    evicts, part: as for `HybridLM.run`; a pass that evicts ends with the last write.
    """
    T, narrow = num_tokens, 2 if bfloat16 else WIDE
    norm = (2 * WIDE + narrow) * T * model.width + WIDE * T
    shared = 2 * norm + 4 * narrow * T * model.mlp_hidden
    span, last = model.written_span(part) if evicts else (model.span(part), None)
    whole = 0
    for place in span:
        kind = model.layers[place]
        whole += shared
        if kind == "attn":
            whole += _attention_nbytes(model, T, window_fill, narrow)
        else:
            whole += _written_nbytes(model, kind, T, narrow) + _reads_nbytes(model, T, narrow)
    if last is None:
        return whole
    return whole + norm + _written_nbytes(model, model.layers[last], T, narrow, queries=False)


def _count_matrices(model: ModelConfig) -> int:
    """Numbers in the matrices of the blocks."""
    D, queries = model.width, model.attn_heads * model.head_dim
    keys, values = model.delta_heads * model.key_dim, model.value_heads * model.value_dim
    recurrent = D * (2 * keys + 3 * values + 2 * model.value_heads)
    mixers: dict[LayerType, int] = {
        "attn": D * (2 * queries + 2 * model.kv_heads * model.head_dim),
        "gdn": recurrent,
        "hebbian": recurrent,
        "jet": recurrent + generator_weights(model),
    }
    return sum(mixers[kind] + 3 * D * model.mlp_hidden for kind in model.layers)


def _attention_nbytes(model: ModelConfig, T: int, W: int, narrow: int) -> int:
    heads, size = model.attn_heads, model.head_dim
    tokens = 2 * narrow * T * heads * size
    if W + T > SHORT_WINDOW:
        return tokens + 2 * narrow * (W + T) * model.kv_heads * size + WIDE * T * heads
    weights = WIDE if narrow == WIDE else WIDE + narrow
    return tokens + (2 * narrow * heads * size + weights * T * heads) * (W + T)


def _written_nbytes(
    model: ModelConfig, kind: LayerType, T: int, narrow: int, *, queries: bool = True
) -> int:
    """All but the reads of a recurrent layer, and without queries what `write` keeps."""
    heads = (2 if queries else 1) * model.delta_heads
    keys, values = heads * model.key_dim, model.value_heads * model.value_dim
    convolution = narrow * (T + model.conv_width - 1) * (keys + values)
    if kind == "jet":
        convolution = _dynamic_conv_nbytes(model, T, narrow, heads)
    inputs = T * (WIDE * keys + narrow * values)
    gates = 5 * WIDE * T * model.value_heads
    return convolution + inputs + gates + -(-T // CHUNK_SIZE) * _state_nbytes(model)


def _dynamic_conv_nbytes(model: ModelConfig, T: int, narrow: int, heads: int) -> int:
    """heads: those of keys, or of queries and keys."""
    keys, values = heads * model.key_dim, model.value_heads * model.value_dim
    convolution = narrow * (2 * T + model.conv_width - 1) * values
    kernels = narrow * T * (model.conv_width * values + 2 * generator_width(model))
    return narrow * T * (keys + values) + WIDE * T * (keys + heads) + convolution + kernels


def _reads_nbytes(model: ModelConfig, T: int, narrow: int) -> int:
    wide_copies = 4 if narrow == WIDE else 5
    values = (2 * narrow + wide_copies * WIDE) * T * model.value_heads * model.value_dim
    return values + WIDE * T * model.value_heads


def _state_nbytes(model: ModelConfig) -> int:
    return WIDE * model.value_heads * model.key_dim * model.value_dim


def _boundary_nbytes(model: ModelConfig, T: int) -> int:
    """What a checkpointed pass keeps: its input and the states it starts from."""
    recurrent = sum(kind != "attn" for kind in model.layers)
    return WIDE * T * model.width + recurrent * _state_nbytes(model)
