"""Recall: read facts over many windows, then say what was last told about a key.

For interference and forgetting: how far back a fact may lie, whether newer ones win over those they
overwrite, and whether it is known what was never told. A stream is windows of statements, a key and
its value each, with filler between them and none across a boundary. Ids: 0 the question mark, 1
"unknown", then filler, keys, values.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from slowwave.sleep.objective import NONE, Batch, Labelled
from slowwave.tasks.base import Lines, Task
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
from slowwave.tasks.recall import RecallConfig

ABSENT = -1

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


class Recall(Task[RecallConfig]):
    """Each question is an answer of its own. Groups are how many windows ago the fact was last
    told, apart for facts that overwrote another, and one for keys that were never told."""

    config_class = RecallConfig
    group_name = "windows ago"

    def __init__(self, config: RecallConfig) -> None:
        super().__init__(config)
        self.first_value = FIRST_KEY + config.keys
        self.vocab_size = self.first_value + config.values
        self.context_tokens = config.windows * config.window
        self.prediction_tokens = 2
        self.groups = {distance: str(distance) for distance in config.distances}
        if config.updates:
            # Nothing that the first window says is an update.
            later = [distance for distance in config.distances if distance < config.windows]
            self.groups |= {_UPDATED + distance: f"{distance} updated" for distance in later}
        if config.untold:
            self.groups[_UNTOLD] = "never told"

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

    def describe(self, split: str, index: int) -> tuple[Lines, Lines, Lines]:
        facts, _ = self._draw(split, [index])
        windows = np.stack([facts.keys[0], facts.values[0], facts.overwritten[0]], axis=-1)
        asked = np.stack([facts.asked_keys[0], facts.distances[0], facts.outdated[0]], axis=-1)
        return (
            (", ".join(_say(*fact) for fact in window) for window in windows.tolist()),
            (_ask(*question) for question in asked.tolist()),
            ("unknown" if v == ABSENT else f"v{v}" for v in facts.answers[0].tolist()),
        )

    def label(self, context: Sequence[str]) -> Lines:
        numbers = range(1, self.config.windows + 1, self.config.told_every)
        windows = zip(numbers, context, strict=True)
        return (f"window {number}: {facts}" for number, facts in windows)

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
        checked = check_rows(split, indices)
        words = row_words(checked, self.config, split, "writing", 2 * self.context_tokens)
        facts = draw_facts(self.config, split, checked)
        return facts, words.reshape(len(checked), 2, -1)

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


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """Statements and questions of B streams, W of whose windows tell F facts each; keys and values
    are codes from 0.

    keys, values, overwritten: (B, W, F), statements in no order within their window; overwritten
    is the value that was right before, ABSENT where a statement tells something new.
    asked_keys, answers: (B, Q); an answer is ABSENT where the key was never told.
    distances: (B, Q), windows of any kind since the key was last told, 1 for the newest window; 0
    if never.
    outdated: (B, Q), the value that was right before the answer, or ABSENT.
    """

    keys: Integers
    values: Integers
    overwritten: Integers
    asked_keys: Integers
    answers: Integers
    distances: Integers
    outdated: Integers


def draw_facts(config: RecallConfig, split: str, indices: Words) -> Facts:
    """The streams and questions of the examples `indices` (B,)."""
    draw = functools.partial(row_words, indices, config, split)
    shape = (len(indices), config.telling_windows, config.facts)
    num_updates = (config.telling_windows - 1) * config.updates
    origin = _draw_origins(config, draw("updates", max(num_updates, 1)))
    order = permutation(draw("keys", config.keys), np.full(len(indices), config.keys))
    keys = take(order, (np.cumsum(_is_new(config)) - 1)[origin])
    values = _draw_values(config, split, indices, keys, origin)
    is_update = origin != np.arange(origin.shape[1])
    overwritten = np.where(is_update, take(values, origin), ABSENT)

    is_newest = np.ones_like(is_update)
    rows, slots = np.nonzero(is_update)
    is_newest[rows, origin[rows, slots]] = False
    distances = np.array(config.distances)[
        below(draw("distances", config.questions), len(config.distances))
    ]
    asked = _draw_asked(config, is_newest, distances, draw("asked", config.questions))
    is_untold = unit_interval(draw("kinds", config.questions)) < config.untold
    untold = config.told_keys + below(
        draw("untold", config.questions), max(config.keys - config.told_keys, 1)
    )
    return Facts(
        keys=keys.reshape(shape),
        values=values.reshape(shape),
        overwritten=overwritten.reshape(shape),
        asked_keys=np.where(
            is_untold, take(order, np.minimum(untold, config.keys - 1)), take(keys, asked)
        ),
        answers=np.where(is_untold, ABSENT, take(values, asked)),
        distances=np.where(is_untold, 0, distances),
        outdated=np.where(is_untold, ABSENT, take(overwritten, asked)),
    )


def stream_hash(keys: Integers, values: Integers, facts: int) -> Words:
    """What decides the split of a stream: a hash of what each of its windows says.

    keys, values: (..., windows * facts) codes below 2**20. Filler and the order of statements in a
    window play no part.
    """
    windows = np.arange(keys.shape[-1]) // facts
    statements = (windows << 40 | keys << 20 | values).astype(np.uint64)
    return mix(np.add.reduce(keyed_hash(statements, "recall", "split"), axis=-1))


def _is_new(config: RecallConfig) -> Booleans:
    """Which of the windows * facts slots tell a new key: not the first ones of later windows."""
    slots = np.arange(config.telling_windows * config.facts)
    return (slots < config.facts) | (slots % config.facts >= config.updates)


def _draw_origins(config: RecallConfig, words: Words) -> Integers:
    """For every slot (B, windows * facts) the slot that told its key first: itself, or, for an
    update, any slot of an earlier window that is new and not overwritten yet.

    The last fact of a window is never overwritten, so that every window keeps one to ask about.
    """
    num_rows, facts = len(words), config.facts
    origin = np.tile(np.arange(config.telling_windows * facts), (num_rows, 1))
    rows = np.arange(num_rows)
    pool = np.empty_like(origin)
    size = draws = 0
    for window in range(1, config.telling_windows) if config.updates else ():
        earlier = (window - 1) * facts
        new = np.arange(earlier + (config.updates if window > 1 else 0), earlier + facts - 1)
        pool[:, size : size + len(new)] = new
        size += len(new)
        for slot in range(window * facts, window * facts + config.updates):
            picked = below(words[:, draws], size)
            origin[:, slot] = pool[rows, picked]
            pool[rows, picked] = pool[:, size - 1]
            size, draws = size - 1, draws + 1
    return origin


def _draw_values(
    config: RecallConfig, split: str, indices: Words, keys: Integers, origin: Integers
) -> Integers:
    """(B, windows * facts); an update never repeats the value that it overwrites."""
    seeds = row_seeds(indices, config, split, "values")
    slots = np.arange(origin.shape[1])

    def propose(rows: Integers, attempts: Integers) -> tuple[Integers, Words]:
        words = draw_words(seeds[rows, None, None], counter(slots, attempts[:, None]))
        first = below(words, config.values)
        come_from = origin[rows, None]
        other = take(first, come_from) + 1 + below(words, config.values - 1)
        values = np.where(come_from == slots, first, other % config.values)
        return values, stream_hash(keys[rows, None], values, config.facts)

    return draw_in_split(split, len(indices), propose)


def _draw_asked(
    config: RecallConfig, is_newest: Booleans, distances: Integers, words: Words
) -> Integers:
    """Slots (B, Q), each any of its window's whose fact was not told again later."""
    by_window = is_newest.reshape(len(is_newest), config.telling_windows, config.facts)
    windows = config.telling_windows - distances // config.told_every
    newest = np.take_along_axis(by_window, windows[..., None], axis=1)
    counts = np.cumsum(newest, axis=-1, dtype=np.int64)
    wanted = below(words, counts[..., -1]) + 1
    return windows * config.facts + (counts == wanted[..., None]).argmax(axis=-1)
