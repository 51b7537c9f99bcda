"""Recall: read facts over many windows, then say what was last told about a key.

For interference and forgetting: how far back a fact may lie, whether newer ones win over those they
overwrite, and whether it is known what was never told. A stream is windows of statements, a key and
its value each, with filler between them and none across a boundary. Ids: 0 the question mark, 1
"unknown", then filler, keys, values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from slowwave.tasks.base import NONE, Batch, Example, Labelled
from slowwave.tasks.config import RecallConfig
from slowwave.tasks.random_bits import Integers, Words, below, counter, draw_words
from slowwave.tasks.recall_facts import ABSENT, Facts, draw_facts
from slowwave.tasks.splits import check_indices, check_split, row_seeds

QUESTION = 0
UNKNOWN = 1
FIRST_FILLER = 2
NUM_FILLERS = 8
FIRST_KEY = FIRST_FILLER + NUM_FILLERS

_STATEMENT_TOKENS = 2
# Codes of groups: the distance of a fact that was told once, these and the distance of one that
# overwrote another, this for a key that was never told.
_UPDATED = 2**20
_UNTOLD = 2**21


class Recall:
    """Each question is an answer of its own. Groups are how many windows ago the fact was last
    told, apart for facts that overwrote another, and one for keys that were never told."""

    bytes_per_token: float | None = None
    group_name = "windows ago"

    def __init__(self, config: RecallConfig) -> None:
        self.config = config
        self.first_value = FIRST_KEY + config.keys
        self.vocab_size = self.first_value + config.values
        self.context_tokens = config.windows * config.window
        self.prediction_tokens = 2
        labels = {distance: str(distance) for distance in config.distances}
        if config.updates:
            # Nothing that the first window says is an update.
            later = [distance for distance in config.distances if distance < config.windows]
            labels |= {_UPDATED + distance: f"{distance} updated" for distance in later}
        if config.untold:
            labels[_UNTOLD] = "never told"
        self.group_values = tuple(labels)
        self.group_labels = tuple(labels.values())

    def batch(self, split: str, indices: npt.ArrayLike) -> Batch:
        """Stream (B, windows * window); forked questions (B, questions, 2): the question mark and a
        key, at which the value is predicted. See `Task.batch`."""
        facts, words = self._draw(split, indices)
        context = self._write(facts, words)
        nothing = np.full_like(context, NONE)
        keys = self._key(facts.asked_keys)
        asked = np.stack([np.full_like(keys, QUESTION), keys], axis=-1)
        targets = self._value(facts.answers)
        groups = facts.distances + _UPDATED * (facts.outdated != ABSENT)
        groups[facts.answers == ABSENT] = _UNTOLD
        numbers = np.broadcast_to(np.arange(self.config.questions), targets.shape)
        none = np.full_like(targets, NONE)
        labels = (np.stack([none, column], axis=-1) for column in (targets, numbers, groups))
        questions = Labelled.from_arrays(asked, *labels)
        return Batch(Labelled.from_arrays(context, context, nothing, nothing), questions)

    def example(self, split: str, index: int) -> Example:
        """See `Task.example`."""
        facts, words = self._draw(split, [index])
        told = zip(facts.keys[0], facts.values[0], facts.overwritten[0], strict=True)
        asked = zip(
            facts.asked_keys[0].tolist(),
            facts.distances[0].tolist(),
            facts.outdated[0].tolist(),
            strict=True,
        )
        answers = facts.answers[0].tolist()
        return Example(
            split=split,
            index=index,
            tokens=tuple(self._write(facts, words)[0].tolist()),
            targets=tuple(self._value(facts.answers)[0].tolist()),
            context=tuple(
                ", ".join(_say(*fact) for fact in zip(*map(np.ndarray.tolist, window), strict=True))
                for window in told
            ),
            questions=tuple(_ask(*question) for question in asked),
            answers=tuple("unknown" if value == ABSENT else f"v{value}" for value in answers),
        )

    def render(self, example: Example) -> str:
        """See `Task.render`."""
        numbers = range(1, self.config.windows + 1, self.config.told_every)
        windows = zip(numbers, example.context, strict=True)
        asked = zip(example.questions, example.answers, strict=True)
        return "\n".join(
            [
                f"recall {example.split} {example.index}",
                *(f"  window {number}: {facts}" for number, facts in windows),
                *(f"  {question}: {answer}" for question, answer in asked),
            ]
        )

    def is_correct(self, example: Example, output: Sequence[int]) -> bool:
        """See `Task.is_correct`."""
        return tuple(output) == example.targets

    def floors(self) -> dict[str, float]:
        """What can be scored on the test split without reading the stream.

        constant: always the same answer, "unknown" or a value, whichever is more often right.
        guess: any of the values, where one of them is right: inside the groups of told facts.
        """
        guess = 1 / self.config.values
        untold = self.config.untold
        return {"constant": max(untold, (1 - untold) * guess), "guess": guess}

    def _draw(self, split: str, indices: npt.ArrayLike) -> tuple[Facts, Words]:
        """What the examples say, and words (B, 2, context_tokens) for the look of their windows."""
        check_split(split)
        checked = check_indices(indices)
        seeds = row_seeds(checked, self.config, split, "writing")
        counters = counter(np.arange(2 * self.context_tokens))
        words = draw_words(seeds[:, None], counters).reshape(len(checked), 2, -1)
        return draw_facts(self.config, split, checked), words

    def _write(self, facts: Facts, words: Words) -> Integers:
        """Tokens (B, context_tokens): the statements of a window in any order and place."""
        every, size = self.config.told_every, self.config.window
        shape = (len(words), self.config.windows, size)
        num_facts = facts.keys.shape[-1]
        num_items = size - num_facts * (_STATEMENT_TOKENS - 1)
        places = words[:, 0].reshape(shape)[:, ::every, :num_items]
        order = np.argsort(places, axis=-1, kind="stable")
        widths = np.where(order < num_facts, _STATEMENT_TOKENS, 1)
        starts = np.empty_like(order)
        np.put_along_axis(starts, order, np.cumsum(widths, axis=-1) - widths, axis=-1)
        starts = starts[..., :num_facts]
        tokens = FIRST_FILLER + below(words[:, 1].reshape(shape), NUM_FILLERS)
        telling = tokens[:, ::every]  # a view
        np.put_along_axis(telling, starts, self._key(facts.keys), axis=-1)
        np.put_along_axis(telling, starts + 1, self._value(facts.values), axis=-1)
        return tokens.reshape(len(words), -1)

    def _key(self, codes: Integers) -> Integers:
        return FIRST_KEY + codes

    def _value(self, codes: Integers) -> Integers:
        return np.where(codes == ABSENT, UNKNOWN, self.first_value + codes)


def _say(key: int, value: int, overwritten: int) -> str:
    was = "" if overwritten == ABSENT else f" (was v{overwritten})"
    return f"k{key}=v{value}{was}"


def _ask(key: int, distance: int, outdated: int) -> str:
    if not distance:
        return f"k{key}, never told"
    was = "" if outdated == ABSENT else f", before that v{outdated}"
    return f"k{key}, last told {distance} {'window' if distance == 1 else 'windows'} ago{was}"
