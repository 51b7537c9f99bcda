"""Depo: read the shuffled edges of one directed cycle, then say which node is k edges on.

Section 4.2 of the paper, after Allen-Zhu and Li's Physics of Language Models 4.1. A stream is the
edges, two names each, padded on the left to `nodes` edges of the longest names, and in the row
layout the questions with their answers, padded on the right. `depo_grammar` lists the ids. Padding
is made of ordinary tokens, which a mask hides if the config says so.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slowwave.tasks.base import NONE, Batch, Example, Labelled
from slowwave.tasks.config import DepoConfig
from slowwave.tasks.depo_cycles import Cycles, draw_cycles
from slowwave.tasks.depo_grammar import ABSENT, make_grammar
from slowwave.tasks.random_bits import Integers
from slowwave.tasks.splits import check_indices, check_split


class Depo:
    """Each question is an answer of its own: the end node, after the marker in the official
    grammar. Groups are the hop counts."""

    bytes_per_token: float | None = None
    group_name = "hop"

    def __init__(self, config: DepoConfig) -> None:
        self.config = config
        self.grammar = make_grammar(config)
        self.vocab_size = self.grammar.vocab_size
        self.context_tokens = 2 * config.nodes * self.grammar.name_tokens
        self.group_values = tuple(range(1, config.hops + 1))
        self.group_labels = tuple(map(str, self.group_values))
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

    def example(self, split: str, index: int) -> Example:
        """See `Task.example`."""
        batch = self.batch(split, [index])
        labelled = batch.questions or batch.stream
        cycles = self._draw(split, [index])
        name = self.grammar.name
        edges = [edge for edge in cycles.edges[0].tolist() if edge[0] != ABSENT]
        asked = zip(cycles.hops[0].tolist(), cycles.starts[0].tolist(), strict=True)
        return Example(
            split=split,
            index=index,
            tokens=tuple(batch.stream.inputs[0].tolist()),
            targets=tuple(labelled.targets[labelled.answers >= 0].tolist()),
            context=tuple(f"{name(a)}>{name(b)}" for a, b in edges),
            questions=tuple(
                f"{hops} {'hop' if hops == 1 else 'hops'} from {name(start)}"
                for hops, start in asked
                if hops != ABSENT
            ),
            answers=tuple(name(code) for code in cycles.answers[0].tolist() if code != ABSENT),
        )

    def render(self, example: Example) -> str:
        """See `Task.render`."""
        asked = zip(example.questions, example.answers, strict=True)
        return "\n".join(
            [
                f"depo {example.split} {example.index}",
                f"  edges: {' '.join(example.context)}",
                *(f"  {question}: {answer}" for question, answer in asked),
            ]
        )

    def is_correct(self, example: Example, output: Sequence[int]) -> bool:
        """See `Task.is_correct`."""
        return tuple(output) == example.targets

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
        check_split(split)
        return draw_cycles(self.config, split, check_indices(indices))

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
    return np.take_along_axis(columns, order[None], axis=-1)


def _moved_right(tokens: Integers) -> Integers:
    """Moves what is ABSENT to the left end of (B, T), in order."""
    order = np.argsort(tokens != ABSENT, axis=-1, kind="stable")
    return np.take_along_axis(tokens, order, axis=-1)
