"""Counts floating-point operations of a pass from sizes alone: every matrix product performed.

A multiply-add is 2. Per row, for T tokens (letters as in `slowwave.state`): what each mixer says of
itself (`Mixer.forward_flops`, the rules in chunks and their triangular solve), 3 * 2 T D h for a
feed-forward layer or prime MLP of hidden width h, 2 D vocabulary for every position that gets
logits.

Left out is work of order T D (norms, rotations, activations, decays, gates, softmax, the
convolution, residual sums, embedding look-ups), a few per cent at width 256. Padding and masked
tokens cost as much as others. The reference and fla backends are charged as chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from slowwave.models.config import ModelConfig, Part
from slowwave.models.mixers.mixer import Context, Mixer, find_mixer, product_flops


class Pass(NamedTuple):
    """num_tokens after `cached` ones that attention holds; evicts, part, ridge: as for
    `HybridLM.run`.

    is_read: whether a loss or a later pass reads what comes out. keeps_writes, keeps_cache: whether
    the fast weights and the keys and values that it makes are read after it. Gradients come back
    through nothing else. is_step: whether it also takes a gradient step of the prime MLPs on the
    loss of its tokens; then it is one of the suffix.
    """

    num_tokens: int
    cached: int
    evicts: bool = False
    part: Part = "all"
    is_read: bool = True
    keeps_writes: bool = True
    keeps_cache: bool = True
    ridge: float | None = None
    is_step: bool = False


def written_span(span: range, mixers: Sequence[Mixer | type[Mixer]]) -> tuple[range, int | None]:
    """What of a span of blocks is left to compute where only its writes matter.

    Returns (places of whole blocks, place of the last block with mid-term memory, which ends it).
    """
    places = [place for place in span if mixers[place].has_midterm]
    return (range(span.start, places[-1]), places[-1]) if places else (span, None)


def pass_flops(sizes: ModelConfig, each: Pass, *, keep_state: bool = True) -> int:
    """One pass of all blocks, or a part of them.

    keep_state: False for forked questions, which skip a rule's last state update.
    """
    if each.is_step:
        return _step_flops(sizes, each)
    span, last = sizes.span(each.part), None
    if each.evicts:
        span, last = written_span(span, [find_mixer(kind) for kind in sizes.layers])
    context = Context(keep_state=keep_state, ridge=each.ridge)
    whole = _blocks_flops(sizes, span, each, context)
    if last is None:
        return whole
    writer = find_mixer(sizes.layers[last])
    return whole + writer.write_flops(sizes, each.num_tokens, context=context)


def learned_flops(sizes: ModelConfig, each: Pass) -> int:
    """What of a pass gradients come back through: it ends with the last of what is read of it."""
    span = sizes.span(each.part)
    keeps = {True: each.keeps_writes, False: each.keeps_cache}
    kept = [i for i in span if keeps[find_mixer(sizes.layers[i]).has_midterm]]
    if each.is_read or (each.evicts and kept):
        return pass_flops(sizes, each)
    if not kept:
        return 0
    context = Context(ridge=each.ridge)
    whole = _blocks_flops(sizes, range(span.start, kept[-1]), each, context)
    last = find_mixer(sizes.layers[kept[-1]])
    return whole + last.state_flops(sizes, each.num_tokens, context=context)


def _step_flops(sizes: ModelConfig, each: Pass) -> int:
    """Forward, logits of every token, and back to the prime MLPs, whose gradients are the only ones
    of weights. None go below the first prime MLP; behind it all mixers are attention."""
    T, cached, context = each.num_tokens, each.cached, Context()
    suffix = sizes.span("suffix")
    back = head_flops(sizes, T) + len(suffix) * 3 * product_flops(T, sizes.width, sizes.mlp_hidden)
    prime = product_flops(T, sizes.width, sizes.prime_width)
    back += len(suffix) * 6 * prime - 2 * prime
    for i in suffix[1:]:
        mixer = find_mixer(sizes.layers[i])
        whole = mixer.forward_flops(sizes, T, cached=cached, context=context)
        projections = mixer.forward_flops(sizes, T, cached=-T, context=context)
        back += 2 * whole - projections
    return _blocks_flops(sizes, suffix, each, context) + head_flops(sizes, T) + back


def head_flops(sizes: ModelConfig, num_positions: int) -> int:
    """Logits of `num_positions` positions. Raises ValueError if the vocabulary is not known."""
    if num_positions and sizes.vocab_size < 1:
        raise ValueError("model.vocab_size is 0; set it to the task's vocabulary to count the head")
    return product_flops(num_positions, sizes.width, sizes.vocab_size)


def _blocks_flops(sizes: ModelConfig, span: range, each: Pass, context: Context) -> int:
    T, cached = each.num_tokens, each.cached
    feed_forward = 3 * product_flops(T, sizes.width, sizes.mlp_hidden)
    primes = len(set(span) & set(sizes.span("suffix")))
    mixers = (find_mixer(sizes.layers[i]) for i in span)
    return primes * 3 * product_flops(T, sizes.width, sizes.prime_width) + sum(
        feed_forward + mixer.forward_flops(sizes, T, cached=cached, context=context)
        for mixer in mixers
    )
