"""Draws what a Depo example says: a directed cycle, the order of its edges, and the questions."""

from __future__ import annotations

import dataclasses

import numpy as np

from slowwave.tasks.config import DepoConfig
from slowwave.tasks.depo_grammar import ABSENT, NUM_FIRST_TOKENS, NUM_LAST_TOKENS
from slowwave.tasks.random_bits import (
    Booleans,
    Integers,
    Words,
    below,
    counter,
    draw_words,
    keyed_hash,
    mix,
    permutation,
    unit_interval,
)
from slowwave.tasks.splits import draw_in_split, row_seeds


@dataclasses.dataclass(frozen=True, slots=True)
class Cycles:
    """B cycles of at most E nodes with F questions each; nodes are codes (`depo_grammar`).

    edges: (B, E, 2), from and to, in the order of the stream; the first E - n of a cycle of n nodes
    are ABSENT. hops, starts, answers: (B, F), ABSENT from the first question that is not asked.
    """

    edges: Integers
    hops: Integers
    starts: Integers
    answers: Integers


def draw_cycles(config: DepoConfig, split: str, indices: Words) -> Cycles:
    """The cycles and questions of the examples `indices` (B,)."""

    def draw(purpose: str, num_slots: int) -> Words:
        seeds = row_seeds(indices, config, split, purpose)
        return draw_words(seeds[:, None], counter(np.arange(num_slots)))

    sizes = _draw_sizes(config, split, draw("size", 1)[:, 0])
    cycle = _draw_cycle(config, split, indices, sizes)

    # The positions of a shorter cycle come first in its permutation, and last in the reverse.
    order = permutation(draw("edges", config.nodes), sizes)[:, ::-1]
    edges = np.stack([_at(cycle, order), _at(cycle, (order + 1) % sizes[:, None])], axis=-1)
    edges[order >= sizes[:, None]] = ABSENT

    hops = 1 + below(draw("hops", config.questions), config.hops)
    if config.grammar == "compact":
        starts = below(draw("starts", config.questions), sizes[:, None])
        is_asked = np.ones_like(starts, dtype=np.bool_)
    else:
        starts = permutation(draw("starts", config.nodes), sizes)[:, : config.questions]
        is_asked = starts < sizes[:, None]
    answers = _at(cycle, (starts + hops) % sizes[:, None])
    starts = _at(cycle, starts)
    asked = (np.where(is_asked, array, ABSENT) for array in (hops, starts, answers))
    return Cycles(edges, *asked)


def cycle_hash(grammar: str, cycle: Integers, sizes: Integers) -> Words:
    """What decides the split of a cycle: a hash of the set of its edges.

    cycle: (..., E) codes, of which the first `sizes` (...,) count. The sum does not depend on the
    node at which the cycle is written to start.
    """
    positions = np.arange(cycle.shape[-1])
    following = np.where(positions + 1 < sizes[..., None], positions + 1, 0)
    after = np.take_along_axis(cycle, following, axis=-1)
    edges = keyed_hash((cycle << 32 | after).astype(np.uint64), "depo", grammar, "split")
    edges[positions >= sizes[..., None]] = 0
    return mix(np.add.reduce(edges, axis=-1))


def _draw_sizes(config: DepoConfig, split: str, words: Words) -> Integers:
    """Nodes of each cycle (B,): weighted 1 / (n + sqrt(nodes)) in training, else the largest."""
    if split != "train" or config.min_nodes is None:
        return np.full(len(words), config.nodes)
    sizes = np.arange(config.min_nodes, config.nodes + 1)
    cumulative = np.cumsum(1 / (sizes + config.nodes**0.5))
    drawn = np.searchsorted(cumulative / cumulative[-1], unit_interval(words), side="right")
    return sizes[drawn]


def _draw_cycle(config: DepoConfig, split: str, indices: Words, sizes: Integers) -> Integers:
    """Codes (B, E); the first `sizes` are the cycle, in its order."""
    name_seeds = row_seeds(indices, config, split, "names")
    order_seeds = row_seeds(indices, config, split, "order")
    slots = np.arange(config.nodes)

    def propose(rows: Integers, attempts: Integers) -> tuple[Integers, Words]:
        shape = (len(rows), len(attempts))
        counters = counter(slots, attempts[:, None])
        words = draw_words(order_seeds[rows, None, None], counters)
        counts = np.broadcast_to(sizes[rows, None], shape)
        if config.grammar == "compact":
            cycles = permutation(words, np.full(shape, config.nodes))
        else:
            names = _draw_names(name_seeds[rows], attempts, config.nodes)
            cycles = _at(names, permutation(words, counts))
        return cycles, cycle_hash(config.grammar, cycles, counts)

    return draw_in_split(split, len(indices), propose)


def _draw_names(seeds: Words, attempts: Integers, num_names: int) -> Integers:
    """Codes (M, A, num_names) of official names, redrawn until distinct, in the order drawn.

    One token and two are equally likely in each draw; see `depo_grammar` for the codes.
    """
    num_draws = 2 * num_names + 16
    while True:
        counters = counter(np.arange(num_draws), attempts[:, None])
        words = draw_words(seeds[:, None, None], counters)
        two = NUM_LAST_TOKENS + below(words, NUM_FIRST_TOKENS * NUM_LAST_TOKENS)
        codes = np.where(words & np.uint64(1), two, below(words, NUM_LAST_TOKENS))
        is_new = _first_occurrences(codes)
        if is_new.sum(axis=-1).min() >= num_names:
            return _at(codes, np.argsort(~is_new, axis=-1, kind="stable")[..., :num_names])
        num_draws *= 2  # the draws so far stay what they are


def _first_occurrences(codes: Integers) -> Booleans:
    """Whether each item is the first of its value along the last axis; same shape."""
    order = np.argsort(codes.astype(np.int16), axis=-1, kind="stable")
    ordered = _at(codes, order)
    is_first = np.ones_like(codes, dtype=np.bool_)
    np.put_along_axis(is_first, order[..., 1:], ordered[..., 1:] != ordered[..., :-1], axis=-1)
    return is_first


def _at(values: Integers, positions: Integers) -> Integers:
    return np.take_along_axis(values, positions, axis=-1)
