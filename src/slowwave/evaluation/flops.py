"""Counts floating-point operations from sizes alone, per model and schedule; torch-free.

What is counted, a multiply-add being 2: every matrix product that the code performs, and the
triangular solve of the delta rule. Per row, for T tokens that follow W in the window, carried ones
included where eviction slides (letters as in `slowwave.state`, h the hidden width of the feed-
forward layer, ceil() written out as whole chunks):

    attention      projections 2 T D (H + 2 Hkv) Dh + 2 T H Dh D; scores and their use
                   2 * 2 T (W + T) H Dh, the full rectangle that is computed, masked part included
    recurrent      projections 2 T D (2 H K + G V + 2 G + G V) + 2 T G V D; then the rule, per chunk
                   of C = min(64, T) tokens, the last one padded to C, and value head
    Hebbian rule   2 C^2 K (q k^T), 2 C K V (a read of the state), 2 C^2 V (reads inside the
                   chunk), 2 K C V (the new state)
    delta rule     these, and 2 C^2 K (k k^T), C (C - 1) (V + K) (the solve), 2 C K V (a second
                   read of the state)
    jet            as with the delta rule; and what makes kernels of w taps for the C = G V channels
                   of the values, 2 T D R + 2 T R C w with R = C / 8
    feed-forward   3 * 2 T D h
    head           2 D vocabulary, per scored position
    last pass      before an eviction, when nobody reads what comes out, the last recurrent layer
                   ends the pass: its projections 2 T D (H K + G V + 2 G), kernels, the rule, and
                   no more

What is left out: work of order T D (norms, rotations, activations, decays, gates, softmax, the
convolution, residual sums, embedding look-ups), a few per cent at width 256. Padding
and masked tokens cost as much as others. The reference and fla backends are charged as chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from slowwave.evaluation.passes import Fill, Pass, follow_fill, list_passes
from slowwave.models.config import LayerType, ModelConfig, Part
from slowwave.sleep.config import SleepConfig

if TYPE_CHECKING:
    from slowwave.sleep.schedule import Segment

CHUNK_SIZE = 64
GENERATOR_REDUCTION = 8
PAPER = SleepConfig()


def batch_flops(
    model: ModelConfig,
    segments: Sequence[Segment],
    *,
    rows: int,
    num_scored: int,
    window_fill: int = 0,
    forks: int = 0,
    fork_tokens: int = 0,
    sleep: SleepConfig = PAPER,
) -> int:
    """One forward pass of a batch: `rows` streams, then `forks` questions asked of each.

    segments: the schedule of a stream, with `window_fill` tokens in the window before it.
    num_scored: all positions of the batch that get logits, those in questions included.
    fork_tokens: tokens Q of a question, which sees the open window and keeps no writes.
    sleep: what stays cached, and how often a question is read.
    """
    stream = stream_flops(model, segments, window_fill=window_fill, keep_hidden=False, sleep=sleep)
    *_, held = follow_fill(segments, sleep, Fill(window_fill))
    asked = forward_flops(model, fork_tokens, window_fill=sum(held), keep_writes=False)
    return rows * (stream + forks * sleep.wake_passes * asked) + head_flops(model, num_scored)


def training_flops(forward: int, unread: int = 0) -> int:
    """A training step whose forward pass costs `forward`: the backward pass costs twice that.

    unread: operations of the forward pass that no gradient comes back through, see `unread_flops`.
    Activations that are computed again in the backward pass earn no credit.
    """
    return 3 * forward - 2 * unread


def unread_flops(
    model: ModelConfig, segments: Sequence[Segment], *, rows: int, sleep: SleepConfig = PAPER
) -> int:
    """What `batch_flops` counts though no loss depends on it, of an empty window at first.

    So are a window's last feed-forward layer and last reads where it keeps its keys and values and
    nobody predicts from it, and hidden states that no pass reads again.
    """
    passes = list_passes(model, segments, sleep, Fill(0), keep_hidden=False)
    return rows * sum(_pass_flops(model, each) - _learned_flops(model, each) for each in passes)


def stream_flops(
    model: ModelConfig,
    segments: Sequence[Segment],
    *,
    window_fill: int = 0,
    carried: int = 0,
    num_scored: int = 0,
    keep_hidden: bool = True,
    sleep: SleepConfig = PAPER,
) -> int:
    """One stream read along a schedule: pass 1 of every segment, the further passes of sleeps.

    A sleep reads the whole window again, also what filled it (`window_fill` tokens) before the
    first segment, when attention held `carried` tokens of earlier ones. num_scored: positions that
    get logits. keep_hidden: as for `unroll`, False if nobody reads what pass 1 puts out for windows
    without loss. sleep: what stays cached, and the wake passes.
    """
    fill = Fill(window_fill, carried)
    passes = list_passes(model, segments, sleep, fill, keep_hidden=keep_hidden)
    return head_flops(model, num_scored) + sum(_pass_flops(model, each) for each in passes)


def forward_flops(
    model: ModelConfig,
    num_tokens: int,
    *,
    window_fill: int = 0,
    keep_writes: bool = True,
    evicts: bool = False,
    part: Part = "all",
) -> int:
    """One pass of all blocks, or a part of them, over tokens that follow `window_fill` others.

    keep_writes: False for forked questions, which skip a rule's last state update.
    evicts: as for `HybridLM.run`, nobody reads what the last layers put out.
    """
    span, last = model.written_span(part) if evicts else (model.span(part), None)
    whole = _blocks_flops(model, span, num_tokens, window_fill, keep_writes)
    return whole if last is None else whole + _write_flops(model, model.layers[last], num_tokens)


def delta_rule_flops(model: ModelConfig, T: int, *, keep_writes: bool = True) -> int:
    """The delta rule alone, for one row of T tokens and the heads of `model`."""
    C = min(CHUNK_SIZE, T)
    correction = _product(C, model.key_dim, C) + C * (C - 1) * (model.value_dim + model.key_dim)
    correction += _product(C, model.key_dim, model.value_dim)
    corrected = model.value_heads * _num_chunks(T) * correction
    return corrected + hebbian_rule_flops(model, T, keep_writes=keep_writes)


def hebbian_rule_flops(model: ModelConfig, T: int, *, keep_writes: bool = True) -> int:
    """The Hebbian rule alone, for one row of T tokens and the heads of `model`."""
    K, V, C = model.key_dim, model.value_dim, min(CHUNK_SIZE, T)
    chunk = _product(C, K, C) + _product(C, K, V) + _product(C, C, V)
    num_updates = _num_chunks(T) if keep_writes else max(0, _num_chunks(T) - 1)
    return model.value_heads * (_num_chunks(T) * chunk + num_updates * _product(K, C, V))


def generator_weights(model: ModelConfig) -> int:
    """Numbers in the two matrices that make the kernels of a Jet layer."""
    channels = model.value_heads * model.value_dim
    return generator_width(model) * (model.width + channels * model.conv_width)


def generator_width(model: ModelConfig) -> int:
    """Hidden units R of what makes the kernels of a Jet layer."""
    return max(1, model.value_heads * model.value_dim // GENERATOR_REDUCTION)


def head_flops(model: ModelConfig, num_positions: int) -> int:
    """Logits of `num_positions` positions. Raises ValueError if the vocabulary is not known."""
    if num_positions and model.vocab_size < 1:
        raise ValueError("model.vocab_size is 0; set it to the task's vocabulary to count the head")
    return _product(num_positions, model.width, model.vocab_size)


def _pass_flops(model: ModelConfig, each: Pass) -> int:
    return forward_flops(
        model, each.num_tokens, window_fill=each.cached, evicts=each.evicts, part=each.part
    )


def _learned_flops(model: ModelConfig, each: Pass) -> int:
    """What of a pass gradients come back through: it ends with the last of what is read of it."""
    span, T = model.span(each.part), each.num_tokens
    keeps = {True: each.keeps_cache, False: each.keeps_writes}
    kept = [i for i in span if keeps[model.layers[i] == "attn"]]
    if each.is_read or (each.evicts and kept):
        return _pass_flops(model, each)
    if not kept:
        return 0
    whole = _blocks_flops(model, range(span.start, kept[-1]), T, each.cached, True)
    return whole + _kept_flops(model, model.layers[kept[-1]], T)


def _blocks_flops(model: ModelConfig, span: range, T: int, W: int, keep_writes: bool) -> int:
    feed_forward = 3 * _product(T, model.width, model.mlp_hidden)
    return sum(feed_forward + _mixer_flops(model, model.layers[i], T, W, keep_writes) for i in span)


def _product(rows: int, inner: int, columns: int) -> int:
    return 2 * rows * inner * columns


def _mixer_flops(model: ModelConfig, kind: LayerType, T: int, W: int, keep_writes: bool) -> int:
    if kind == "attn":
        return _attention_flops(model, T, W)
    return _recurrent_flops(model, kind, T, keep_writes)


def _attention_flops(model: ModelConfig, T: int, W: int) -> int:
    queries = model.attn_heads * model.head_dim
    keys_and_values = 2 * model.kv_heads * model.head_dim
    projections = _product(T, model.width, queries + keys_and_values)
    projections += _product(T, queries, model.width)
    return projections + 2 * model.attn_heads * _product(T, model.head_dim, W + T)


def _recurrent_flops(model: ModelConfig, kind: LayerType, T: int, keep_writes: bool) -> int:
    keys, values = model.delta_heads * model.key_dim, model.value_heads * model.value_dim
    projections = _product(T, model.width, 2 * keys + values + 2 * model.value_heads + values)
    projections += _product(T, values, model.width)
    rule = _RULES[kind](model, T, keep_writes=keep_writes)
    return projections + _generator_flops(model, kind, T) + rule


def _write_flops(model: ModelConfig, kind: LayerType, T: int) -> int:
    """The last recurrent layer of a pass that nobody reads: see `RecurrentLayer.write`."""
    keys, values = model.delta_heads * model.key_dim, model.value_heads * model.value_dim
    projections = _product(T, model.width, keys + values + 2 * model.value_heads)
    return projections + _generator_flops(model, kind, T) + _RULES[kind](model, T)


def _kept_flops(model: ModelConfig, kind: LayerType, T: int) -> int:
    """What a layer's state depends on; all of a fused product, whose gradient is one, too."""
    if kind == "attn":
        return _product(T, model.width, (model.attn_heads + 2 * model.kv_heads) * model.head_dim)
    keys, values = model.delta_heads * model.key_dim, model.value_heads * model.value_dim
    projections = _product(T, model.width, 2 * keys + values + 2 * model.value_heads)
    return projections + _generator_flops(model, kind, T) + _RULES[kind](model, T)


def _generator_flops(model: ModelConfig, kind: LayerType, T: int) -> int:
    return 2 * T * generator_weights(model) if kind == "jet" else 0


def _num_chunks(T: int) -> int:
    return -(-T // CHUNK_SIZE)


_RULES: dict[LayerType, Callable[..., int]] = {
    "gdn": delta_rule_flops,
    "hebbian": hebbian_rule_flops,
    "jet": delta_rule_flops,
}
