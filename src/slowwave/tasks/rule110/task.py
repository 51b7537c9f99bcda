"""Rule 110: read some states of a cellular automaton, then say how a cell of each comes out.

Section 4.1 of the paper. A stream is num_states states of `width` cells, then the slots
`[query, label 0, label 1, ...]` that predict label 0, label 1, ...: label i is the first cell of
state i after `steps` steps. Ids: 0 and 1 for cells and labels, 2 for the query.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from slowwave.sleep.objective import NONE, Batch, Labelled
from slowwave.tasks.base import Lines, Task
from slowwave.tasks.draws import (
    Integers,
    Words,
    belongs_to,
    check_rows,
    counter,
    draw_in_split,
    draw_words,
    keyed_hash,
    row_seeds,
)
from slowwave.tasks.rule110 import Rule110Config

QUERY = 2

_ENUMERABLE_WIDTH = 16
_FLOOR_SAMPLE = 2**22  # a sixteenth of it, 262,144 states, is in the test split


def evolve(states: Words, width: int, steps: int) -> Words:
    """Rule 110 on rings of `width` cells for `steps` steps.

    states: any shape, one word a state; bit j is cell j, whose left neighbour is cell j-1.
    """
    mask = np.uint64(2**width - 1)
    one, last = np.uint64(1), np.uint64(width - 1)
    for _ in range(steps):
        left = (states << one | states >> last) & mask
        right = (states >> one | states << last) & mask
        # 1 unless (left, self, right) is 111, 100 or 000.
        states = (states | right) & ~(left & states & right)
    return states


def state_hash(states: Words, width: int) -> Words:
    """What decides the split of each state; the same for any number of steps."""
    return keyed_hash(states, "rule110", "split", width)


class Rule110(Task[Rule110Config]):
    """Each answer is a whole example: all labels must be right. Groups are the states."""

    config_class = Rule110Config
    vocab_size = 3
    group_name = "state"

    def __init__(self, config: Rule110Config) -> None:
        super().__init__(config)
        self.context_tokens = config.num_states * config.width
        self.prediction_tokens = config.num_states
        self.groups = {state: str(state) for state in range(config.num_states)}

    def batch(self, split: str, indices: npt.ArrayLike) -> Batch:
        """Stream (B, num_states * width + num_states), no forked questions; see `Task.batch`."""
        states = self._draw(split, indices)
        labels = self._labels(states)
        num_rows, num_states = labels.shape
        context = self._cells(states).reshape(num_rows, -1)
        query = np.full((num_rows, 1), QUERY)
        inputs = np.concatenate([context, query, labels[:, :-1]], axis=1)
        targets = np.concatenate([context, labels], axis=1)
        answers = np.full_like(inputs, NONE)
        answers[:, -num_states:] = 0
        groups = np.full_like(inputs, NONE)
        groups[:, -num_states:] = np.arange(num_states)
        return Batch(Labelled.from_arrays(inputs, targets, answers, groups), None)

    def describe(self, split: str, index: int) -> tuple[Lines, Lines, Lines]:
        states = self._draw(split, [index])[0]
        steps = self.config.steps
        return (
            ("".join(map(str, cells)) for cells in self._cells(states).tolist()),
            (f"first cell of state {number} after {steps} steps" for number in self.groups),
            map(str, self._labels(states).tolist()),
        )

    def label(self, context: Sequence[str]) -> Lines:
        return (f"state {number}: {cells}" for number, cells in enumerate(context))

    def evolved_cells(self, split: str, indices: npt.ArrayLike, steps: int) -> Integers:
        """The states of `batch(split, indices)` after `steps` steps, (B, num_states, width)."""
        return self._cells(evolve(self._draw(split, indices), self.config.width, steps))

    def floors(self) -> dict[str, float]:
        """What can be scored on the test split without looking at the states.

        constant: exact match of always answering the likelier bit. marginal: exact match of
        drawing each label with its frequency. bit: share of single labels that the likelier bit
        gets right. The frequency is counted over all test states up to width 16, and over a
        fixed sample of 262,000 of them above.
        """
        ones = _share_of_ones(self.config.width, self.config.steps)
        best = max(ones, 1 - ones)
        num_states = self.config.num_states
        return {
            "constant": best**num_states,
            "marginal": (ones**2 + (1 - ones) ** 2) ** num_states,
            "bit": best,
        }

    def _draw(self, split: str, indices: npt.ArrayLike) -> Words:
        """States (B, num_states), one word each."""
        width, num_states = self.config.width, self.config.num_states
        seeds = row_seeds(check_rows(split, indices), self.config, split, "states")

        def propose(rows: Integers, attempts: Integers) -> tuple[Words, Words]:
            example, slot = np.divmod(rows[:, None], num_states)
            words = draw_words(seeds[example], counter(slot, attempts))
            states = words >> np.uint64(64 - width)
            return states, state_hash(states, width)

        return draw_in_split(split, len(seeds) * num_states, propose).reshape(-1, num_states)

    def _cells(self, states: Words) -> Integers:
        """(...,) -> (..., width), 0 or 1 a cell."""
        shifts = np.arange(self.config.width, dtype=np.uint64)
        return (states[..., None] >> shifts & np.uint64(1)).astype(np.int64)

    def _labels(self, states: Words) -> Integers:
        """The first cell of each state after `steps` steps, same shape."""
        evolved = evolve(states, self.config.width, self.config.steps)
        return (evolved & np.uint64(1)).astype(np.int64)


@functools.cache
def _share_of_ones(width: int, steps: int) -> float:
    """How often a label is 1 in the test split."""
    if width <= _ENUMERABLE_WIDTH:
        states = np.arange(2**width, dtype=np.uint64)
    else:
        numbers = np.arange(_FLOOR_SAMPLE, dtype=np.uint64)
        states = keyed_hash(numbers, "rule110", "floors") >> np.uint64(64 - width)
    states = states[belongs_to("test", state_hash(states, width))]
    return float((evolve(states, width, steps) & np.uint64(1)).mean())
