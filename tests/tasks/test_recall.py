"""Recall, against an oracle that reads nothing but tokens and remembers what it was told last."""

from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slowwave.sleep.schedule import NO_LOSS
from slowwave.tasks.draws import SPLITS, belongs_to
from slowwave.tasks.recall import RecallConfig
from slowwave.tasks.recall.task import Recall, stream_hash

QUESTION, UNKNOWN, FIRST_KEY = 0, 1, 10


class Told(NamedTuple):
    """A statement: the window it stood in, and what it said."""

    window: int
    key: int
    value: int


def read(tokens: list[int], config: RecallConfig) -> list[Told]:
    """The statements of a stream in order; a key and its value never stand in two windows."""
    first_value = FIRST_KEY + config.keys
    told: list[Told] = []
    for start in range(0, len(tokens), config.window):
        window = tokens[start : start + config.window]
        place = 0
        while place < len(window):
            if window[place] < FIRST_KEY:
                assert window[place] > UNKNOWN
                place += 1
                continue
            key, value = window[place : place + 2]
            assert FIRST_KEY <= key < first_value <= value < first_value + config.values
            told.append(Told(start // config.window, key, value))
            place += 2
    return told


def answer(told: list[Told], key: int, windows: int) -> tuple[int, str]:
    """What is to be said about a key at the end of the stream, and the label of its group."""
    about = [statement for statement in told if statement.key == key]
    if not about:
        return UNKNOWN, "never told"
    distance = windows - about[-1].window
    return about[-1].value, f"{distance} updated" if len(about) > 1 else str(distance)


@st.composite
def configs(draw: st.DrawFn) -> RecallConfig:
    facts, telling, every = (draw(st.integers(1, most)) for most in (7, 9, 4))
    updates = draw(st.integers(0, (facts - 1) // 2))
    told = telling * (facts - updates) + updates
    ago = draw(st.sets(st.integers(1, telling), min_size=1))
    untold = draw(st.sampled_from((0.0, 0.3)))
    return RecallConfig(
        window=draw(st.integers(2 * facts, 2 * facts + 9)),
        windows=telling * every,
        facts=facts,
        told_every=every,
        updates=updates,
        keys=told + draw(st.integers(1 if untold else 0, 9)),
        values=draw(st.integers(4096, 5000) if told < 12 else st.integers(2, 9)),
        distances=tuple(every * number for number in sorted(ago)),
        questions=draw(st.integers(1, 20)),
        untold=untold,
    )


@given(config=configs(), split=st.sampled_from(SPLITS), index=st.integers(0, 2**62))
def test_answers_equal_the_oracle(config: RecallConfig, split: str, index: int) -> None:
    task = Recall(config)
    labels = task.groups
    batch = task.batch(split, [index])
    asked = batch.questions
    assert asked is not None
    told = read(batch.stream.inputs[0].tolist(), config)
    for number in range(config.questions):
        mark, key = asked.inputs[0, number].tolist()
        value, label = answer(told, key, config.windows)
        assert mark == QUESTION
        assert asked.targets[0, number].tolist() == [NO_LOSS, value]
        assert asked.answers[0, number].tolist() == [-1, number]
        assert asked.groups[0, number, 0] == -1
        assert labels[int(asked.groups[0, number, 1])] == label


@given(config=configs(), split=st.sampled_from(SPLITS), index=st.integers(0, 2**62))
def test_windows_hold_what_they_promise(config: RecallConfig, split: str, index: int) -> None:
    """So many statements, so many of them updates, which say something else, of no key twice."""
    told = read(Recall(config).batch(split, [index]).stream.inputs[0].tolist(), config)
    current: dict[int, Told] = {}
    updated: list[int] = []
    for window in range(config.windows):
        statements = [statement for statement in told if statement.window == window]
        assert len(statements) == (0 if window % config.told_every else config.facts)
        updates = [statement for statement in statements if statement.key in current]
        assert len(updates) == (config.updates if window and statements else 0)
        assert all(current[update.key].value != update.value for update in updates)
        updated += [update.key for update in updates]
        current |= {statement.key: statement for statement in statements}
    assert len(updated) == len(set(updated))
    assert len(current) == config.told_keys
    # Every window that tells facts keeps one that can still be asked about.
    telling = range(0, config.windows, config.told_every)
    assert {statement.window for statement in current.values()} == set(telling)


SMALL = RecallConfig(
    window=9, windows=5, facts=4, updates=1, keys=20, values=6, distances=(1, 2, 5), questions=8
)


def draw_told(config: RecallConfig, split: str, count: int) -> list[list[Told]]:
    streams = Recall(config).batch(split, range(count)).stream.inputs
    return [read(row, config) for row in streams.tolist()]


def is_uniform(counts: Counter[int], num_kinds: int) -> bool:
    expected = counts.total() / num_kinds
    return len(counts) == num_kinds and all(
        abs(count - expected) < 4.5 * expected**0.5 for count in counts.values()
    )


def test_streams_never_cross_splits() -> None:
    """What is said decides, not the filler around it or where it stands. All streams are drawn."""
    dense = RecallConfig(
        window=2,
        windows=1,
        facts=1,
        updates=0,
        keys=1,
        values=4096,
        distances=(1,),
        questions=1,
        untold=0.0,
    )
    sparse = RecallConfig.from_dict({**dense.to_dict(), "window": 5, "questions": 2})
    said = {
        split: {
            told[0].value
            for config, count in ((dense, 40_000), (sparse, 4_000))
            for told in draw_told(config, split, count)
        }
        for split in SPLITS
    }
    assert sum(map(len, said.values())) == len(set.union(*said.values())) == 4096
    assert len(said["test"]) == pytest.approx(256, abs=4.5 * 240**0.5)


def test_keys_values_and_places_are_uniform() -> None:
    streams = draw_told(SMALL, "train", 3000)
    told = [statement for stream in streams for statement in stream]
    assert is_uniform(Counter(statement.key for statement in told), SMALL.keys)
    assert is_uniform(Counter(statement.value for statement in told), SMALL.values)
    windows = Recall(SMALL).batch("train", range(3000)).stream.inputs.reshape(-1, SMALL.window)
    is_filler = windows < FIRST_KEY
    # A single filler stands before, between or behind four statements: at place 0, 2, 4, 6 or 8.
    assert is_uniform(Counter(is_filler.nonzero()[:, 1].tolist()), 5)
    assert is_uniform(Counter(windows[is_filler].tolist()), 8)


def test_updates_overwrite_facts_of_any_earlier_window() -> None:
    ages: Counter[int] = Counter()
    places: Counter[int] = Counter()
    for stream in draw_told(SMALL, "train", 2000):
        newest: dict[int, Told] = {}
        for place, statement in enumerate(stream):
            if statement.key in newest and statement.window == 4:
                ages[4 - newest[statement.key].window] += 1
            if statement.key in newest:
                places[place % SMALL.facts] += 1
            newest[statement.key] = statement
    # Into window 5 come 3 + 2 + 2 + 2 facts that may be overwritten, less three that were.
    assert set(ages) == {1, 2, 3, 4}
    assert ages[1] / ages.total() == pytest.approx(2 / 6, abs=4.5 * 0.5 / 2000**0.5)
    assert is_uniform(places, SMALL.facts)


def test_questions_are_uniform() -> None:
    task = Recall(SMALL)
    batch = task.batch("train", range(3000))
    asked = batch.questions
    assert asked is not None
    labels = task.groups
    groups = [labels[group] for group in asked.groups[..., 1].ravel().tolist()]
    counts = Counter(groups)
    assert counts["never told"] / len(groups) == pytest.approx(
        SMALL.untold, abs=4.5 * (SMALL.untold / len(groups)) ** 0.5
    )
    del counts["never told"]
    distances: Counter[int] = Counter()
    for label, count in counts.items():
        distances[int(label.split()[0])] += count
    assert is_uniform(distances, len(SMALL.distances))
    assert counts["5 updated"] == 0
    # One window ago nothing is overwritten yet: one of its four facts is an update.
    assert counts["1 updated"] / distances[1] == pytest.approx(
        1 / 4, abs=4.5 * 0.5 / distances[1] ** 0.5
    )
    keys = Counter(asked.inputs[..., 1].ravel().tolist())
    assert is_uniform(keys, SMALL.keys)


def test_floors_are_what_guessers_score() -> None:
    for untold in (0.4, 0.05, 0.0):
        config = RecallConfig.from_dict({**SMALL.to_dict(), "untold": untold})
        asked = Recall(config).batch("test", range(2000)).questions
        assert asked is not None
        answers = asked.targets[..., 1].ravel()
        floors = Recall(config).floors()
        (best,) = Counter(answers.tolist()).most_common(1)
        assert best[1] / len(answers) == pytest.approx(floors["constant"], abs=0.015)
        told = answers[answers != UNKNOWN]
        guesses = torch.arange(len(told)) % config.values + FIRST_KEY + config.keys
        assert (guesses == told).double().mean() == pytest.approx(floors["guess"], abs=0.015)


def test_a_thousand_windows() -> None:
    config = RecallConfig(
        window=8,
        windows=1000,
        facts=3,
        updates=1,
        keys=2100,
        distances=(1, 10, 100, 1000),
    )
    task = Recall(config)
    assert task.group_labels[:4] == ("1", "10", "100", "1000")
    batch = task.batch("test", [0])
    asked = batch.questions
    assert asked is not None
    told = read(batch.stream.inputs[0].tolist(), config)
    for (_, key), (_, value) in zip(
        asked.inputs[0].tolist(), asked.targets[0].tolist(), strict=True
    ):
        assert answer(told, key, config.windows)[0] == value


def test_filler_windows_leave_what_is_told_alone() -> None:
    """So a stream keeps its split however far apart its windows are drawn."""
    spread = RecallConfig.from_dict(
        {**SMALL.to_dict(), "windows": 15, "told_every": 3, "distances": [3, 6, 15]}
    )
    for split in SPLITS:
        for told in draw_told(spread, split, 50):
            keys, values = (
                np.array([[getattr(each, field) for each in told]]) for field in ("key", "value")
            )
            first_value = FIRST_KEY + spread.keys
            hashes = stream_hash(keys - FIRST_KEY, values - first_value, spread.facts)
            assert belongs_to(split, hashes).all()


@pytest.mark.parametrize("every", [1, 2])
def test_examples_are_what_batches_hold(every: int) -> None:
    changes = {"windows": 5 * every, "told_every": every, "distances": [every, 5 * every]}
    task = Recall(RecallConfig.from_dict({**SMALL.to_dict(), **changes}))
    example = task.example("validation", 5)
    batch = task.batch("validation", [5])
    asked = batch.questions
    assert asked is not None
    assert example.tokens == tuple(batch.stream.inputs[0].tolist())
    assert example.targets == tuple(asked.targets[0, :, 1].tolist())
    told = read(list(example.tokens), SMALL)
    for number, window in zip(range(0, 5 * every, every), example.context, strict=True):
        said = [f"k{key - 10}=v{value - 30}" for at, key, value in told if at == number]
        assert sorted(entry.split(" ")[0] for entry in window.split(", ")) == sorted(said)
    older: dict[int, list[int]] = {}
    for _, key, value in told:
        older.setdefault(key - 10, []).append(value - 30)
    for question, right in zip(example.questions, example.answers, strict=True):
        values = older.get(int(question.split(",")[0][1:]), [])
        assert right == (f"v{values[-1]}" if values else "unknown")
        assert question.endswith("never told") == (not values)
        before = f"before that v{values[0]}" if values else "before that"
        assert (before in question) == (len(values) == 2)
    text = task.render(example)
    for number, window in zip(range(1, 5 * every + 1, every), example.context, strict=True):
        assert f"  window {number}: {window}\n" in text
    assert all(f"{q}: {a}" in text for q, a in zip(example.questions, example.answers, strict=True))
