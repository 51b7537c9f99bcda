"""Depo: read the shuffled edges of one directed cycle, then say which node is k edges on.

Section 4.2 of the paper, after Allen-Zhu and Li's Physics of Language Models 4.1. A stream is the
edges, two names each, padded on the left to `nodes` edges of the longest names, and in the row
layout the questions with their answers, padded on the right. `grammar` lists the ids. Padding
is made of ordinary tokens, which a mask hides if the config says so.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slowwave.sleep.objective import NONE, Batch, Labelled
from slowwave.tasks.base import Lines, Task
from slowwave.tasks.depo import NUM_FIRST_TOKENS, NUM_LAST_TOKENS, DepoConfig
from slowwave.tasks.depo.grammar import ABSENT, make_grammar
from slowwave.tasks.draws import (
    Booleans,
    Integers,
    Words,
    below,
    check_rows,
    counter,
    draw_in_split,
    draw_words,
    keyed_hash,
    mix,
    permutation,
    row_seeds,
    row_words,
    take,
    unit_interval,
)


class Depo(Task[DepoConfig]):
    """Each question is an answer of its own: the end node, after the marker in the official
    grammar. Groups are the hop counts."""

    config_class = DepoConfig
    group_name = "hop"

    def __init__(self, config: DepoConfig) -> None:
        super().__init__(config)
        self.grammar = make_grammar(config)
        self.vocab_size = self.grammar.vocab_size
        self.context_tokens = 2 * config.nodes * self.grammar.name_tokens
        self.groups = {hops: str(hops) for hops in range(1, config.hops + 1)}
        if config.layout == "row":
            self.prediction_tokens = config.questions * self.grammar.num_question_tokens
        else:
            self.prediction_tokens = self.grammar.num_question_tokens - 1

    def batch(self, split: str, indices: npt.ArrayLike) -> Batch:
        """Stream (B, context_tokens [+ prediction_tokens in a row layout]); forked questions
        (B, questions, prediction_tokens), without the last token of the longest, which predicts
        nothing. Padding of forked questions is never masked, as nothing comes after it. See
        `Task.batch`.
        """
        cycles = self._draw(split, indices)
        context = _moved_right(self.grammar.context(cycles.edges))
        nothing = np.full_like(context, NONE)

        tokens = self.grammar.questions(cycles.hops, cycles.starts, cycles.answers)
        num_rows, num_questions, num_tokens = tokens.shape
        is_scored = np.arange(num_tokens) >= self.grammar.num_unscored_tokens
        answers = np.where(is_scored & (tokens != ABSENT), np.arange(num_questions)[:, None], NONE)
        groups = np.broadcast_to(cycles.hops[..., None], tokens.shape)
        asked = np.stack([tokens, answers, groups])

        if self.config.layout == "row":
            asked = _moved_left(asked.reshape(3, num_rows, -1))
            asked = np.concatenate([[context, nothing, nothing], asked], axis=-1)
            stream = Labelled.from_arrays(self._pad(asked[0]), *np.roll(asked, -1, axis=-1))
            return Batch(stream, None, self._mask(asked[0]))

        asked = _moved_left(asked)
        questions = Labelled.from_arrays(self._pad(asked[0, ..., :-1]), *asked[..., 1:])
        stream = Labelled.from_arrays(self._pad(context), nothing, nothing, nothing)
        return Batch(stream, questions, self._mask(context))

    def describe(self, split: str, index: int) -> tuple[Lines, Lines, Lines]:
        cycles, name = self._draw(split, [index]), self.grammar.name
        edges = [edge for edge in cycles.edges[0].tolist() if edge[0] != ABSENT]
        asked = zip(cycles.hops[0].tolist(), cycles.starts[0].tolist(), strict=True)
        return (
            (f"{name(a)}>{name(b)}" for a, b in edges),
            (
                f"{hops} {'hop' if hops == 1 else 'hops'} from {name(start)}"
                for hops, start in asked
                if hops != ABSENT
            ),
            (name(code) for code in cycles.answers[0].tolist() if code != ABSENT),
        )

    def label(self, context: Sequence[str]) -> Lines:
        return [f"edges: {' '.join(context)}"]

    def floors(self) -> dict[str, float]:
        """What can be scored on the test split without reading the cycle.

        chance: knows the nodes and `nodes`, so it answers the start when k is a multiple of
        `nodes`, and otherwise guesses one of the other nodes. copy, where earlier answers are in
        sight and starts may return (compact rows): does so too, unless an earlier question of the
        row had the same start and the same k modulo `nodes`; then it repeats that answer. Both
        are expected values.
        """
        nodes, hops, questions = self.config.nodes, self.config.hops, self.config.questions
        # The share of questions whose k is r modulo `nodes`, for each r.
        shares = np.bincount(np.arange(1, hops + 1) % nodes, minlength=nodes) / hops
        chance = shares[0] + shares[1:].sum() / (nodes - 1)
        floors = {"chance": float(chance)}
        if self.config.layout == "row" and self.config.grammar == "compact":
            earlier = np.arange(questions)[:, None]
            is_seen = 1 - (1 - shares[1:] / nodes) ** earlier
            expected = shares[1:] * (is_seen + (1 - is_seen) / (nodes - 1))
            floors["copy"] = float(shares[0] + expected.sum(axis=1).mean())
        return floors

    def _draw(self, split: str, indices: npt.ArrayLike) -> Cycles:
        return draw_cycles(self.config, split, check_rows(split, indices))

    def _pad(self, tokens: Integers) -> Integers:
        if self.grammar.padding is None:
            return tokens
        return np.where(tokens == ABSENT, self.grammar.padding, tokens)

    def _mask(self, tokens: Integers) -> Tensor | None:
        """(B, T) bool, False where there is no token, if the config hides that."""
        if self.config.padding == "tokens" or self.grammar.padding is None:
            return None
        return torch.from_numpy(tokens != ABSENT)


def _moved_left(columns: Integers) -> Integers:
    """Moves what is ABSENT to the right end, in order.

    columns: (3, ..., T): tokens, and two more columns that move along with them.
    """
    order = np.argsort(columns[0] == ABSENT, axis=-1, kind="stable")
    return take(columns, order[None])


def _moved_right(tokens: Integers) -> Integers:
    """Moves what is ABSENT to the left end of (B, T), in order."""
    return take(tokens, np.argsort(tokens != ABSENT, axis=-1, kind="stable"))


@dataclasses.dataclass(frozen=True, slots=True)
class Cycles:
    """B cycles of at most E nodes with F questions each; nodes are codes (see `grammar`).

    edges: (B, E, 2), from and to, in the order of the stream; the first E - n of a cycle of n nodes
    are ABSENT. hops, starts, answers: (B, F), ABSENT from the first question that is not asked.
    """

    edges: Integers
    hops: Integers
    starts: Integers
    answers: Integers


def draw_cycles(config: DepoConfig, split: str, indices: Words) -> Cycles:
    """The cycles and questions of the examples `indices` (B,)."""
    draw = functools.partial(row_words, indices, config, split)
    sizes = _draw_sizes(config, split, draw("size", 1)[:, 0])
    cycle = _draw_cycle(config, split, indices, sizes)

    # The positions of a shorter cycle come first in its permutation, and last in the reverse.
    order = permutation(draw("edges", config.nodes), sizes)[:, ::-1]
    edges = np.stack([take(cycle, order), take(cycle, (order + 1) % sizes[:, None])], axis=-1)
    edges[order >= sizes[:, None]] = ABSENT

    hops = 1 + below(draw("hops", config.questions), config.hops)
    if config.grammar == "compact":
        starts = below(draw("starts", config.questions), sizes[:, None])
        is_asked = np.ones_like(starts, dtype=np.bool_)
    else:
        starts = permutation(draw("starts", config.nodes), sizes)[:, : config.questions]
        is_asked = starts < sizes[:, None]
    answers = take(cycle, (starts + hops) % sizes[:, None])
    starts = take(cycle, starts)
    asked = (np.where(is_asked, array, ABSENT) for array in (hops, starts, answers))
    return Cycles(edges, *asked)


def cycle_hash(grammar: str, cycle: Integers, sizes: Integers) -> Words:
    """What decides the split of a cycle: a hash of the set of its edges.

    cycle: (..., E) codes, of which the first `sizes` (...,) count. The sum does not depend on the
    node at which the cycle is written to start.
    """
    positions = np.arange(cycle.shape[-1])
    following = np.where(positions + 1 < sizes[..., None], positions + 1, 0)
    after = take(cycle, following)
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
            cycles = take(names, permutation(words, counts))
        return cycles, cycle_hash(config.grammar, cycles, counts)

    return draw_in_split(split, len(indices), propose)


def _draw_names(seeds: Words, attempts: Integers, num_names: int) -> Integers:
    """Codes (M, A, num_names) of official names, redrawn until distinct, in the order drawn.

    One token and two are equally likely in each draw; see `grammar` for the codes.
    """
    num_draws = 2 * num_names + 16
    while True:
        counters = counter(np.arange(num_draws), attempts[:, None])
        words = draw_words(seeds[:, None, None], counters)
        two = NUM_LAST_TOKENS + below(words, NUM_FIRST_TOKENS * NUM_LAST_TOKENS)
        codes = np.where(words & np.uint64(1), two, below(words, NUM_LAST_TOKENS))
        is_new = _first_occurrences(codes)
        if is_new.sum(axis=-1).min() >= num_names:
            return take(codes, np.argsort(~is_new, axis=-1, kind="stable")[..., :num_names])
        num_draws *= 2  # the draws so far stay what they are


def _first_occurrences(codes: Integers) -> Booleans:
    """Whether each item is the first of its value along the last axis; same shape."""
    order = np.argsort(codes.astype(np.int16), axis=-1, kind="stable")
    ordered = take(codes, order)
    is_first = np.ones_like(codes, dtype=np.bool_)
    np.put_along_axis(is_first, order[..., 1:], ordered[..., 1:] != ordered[..., :-1], axis=-1)
    return is_first
