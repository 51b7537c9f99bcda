"""Draws what a Recall example says: facts, window by window, which of them are overwritten, and
what is asked about them. How all this is written in tokens is left to `recall`, and windows without
facts are left out until then."""

from __future__ import annotations

import dataclasses

import numpy as np

from slowwave.tasks.config import RecallConfig
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

ABSENT = -1


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

    def draw(purpose: str, num_slots: int) -> Words:
        seeds = row_seeds(indices, config, split, purpose)
        return draw_words(seeds[:, None], counter(np.arange(num_slots)))

    shape = (len(indices), config.telling_windows, config.facts)
    num_updates = (config.telling_windows - 1) * config.updates
    origin = _draw_origins(config, draw("updates", max(num_updates, 1)))
    order = permutation(draw("keys", config.keys), np.full(len(indices), config.keys))
    keys = _at(order, (np.cumsum(_is_new(config)) - 1)[origin])
    values = _draw_values(config, split, indices, keys, origin)
    is_update = origin != np.arange(origin.shape[1])
    overwritten = np.where(is_update, _at(values, origin), ABSENT)

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
            is_untold, _at(order, np.minimum(untold, config.keys - 1)), _at(keys, asked)
        ),
        answers=np.where(is_untold, ABSENT, _at(values, asked)),
        distances=np.where(is_untold, 0, distances),
        outdated=np.where(is_untold, ABSENT, _at(overwritten, asked)),
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
        other = _at(first, come_from) + 1 + below(words, config.values - 1)
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


def _at(values: Integers, positions: Integers) -> Integers:
    return np.take_along_axis(values, positions, axis=-1)
