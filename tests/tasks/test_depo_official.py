"""Depo in the official grammar, against a parser of the published sequences.

Where SLOWWAVE_REFERENCE_DATA names a folder that holds depo_sample.jsonl, output of the public
generator (facebookresearch/PhysicsLM4), the same parser reads that too.
"""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pytest
import torch

from slowwave.experiment import load_experiment
from slowwave.sleep.objective import Labelled
from slowwave.sleep.schedule import NO_LOSS, Segment, cut_training
from slowwave.tasks.depo import DepoConfig
from slowwave.tasks.depo.task import Depo
from slowwave.tasks.draws import SPLITS

REFERENCE = os.environ.get("SLOWWAVE_REFERENCE_DATA", "")
Name = tuple[int, ...]
Layout = Literal["row", "forked"]


class Parsed(NamedTuple):
    """What a published sequence says; labels are 1 on the marker and the answer's name."""

    after: dict[Name, Name]
    queries: list[tuple[int, Name, Name]]
    labels: list[int]
    context_tokens: int


def to_official_ids(tokens: list[int], hops: int) -> list[int]:
    """Ids of the official grammar with K = `hops`, as Depo numbers them, to the published ones
    (9000+k, 9500); drops padding and starts with 9999, as published sequences do."""
    marker = 100 + hops + 1
    published = {hop + 100: hop + 9000 for hop in range(1, hops + 1)} | {marker: 9500}
    published |= {name: name for name in range(1, 101)}
    return [9999, *(published[token] for token in tokens if token)]


def from_official_ids(ids: list[int], hops: int) -> list[int]:
    """The reverse of `to_official_ids`, without padding and without the 9999 at the start."""
    ours = [*range(1, 100 + hops + 2)]
    tokens = dict(zip(to_official_ids(ours, hops)[1:], ours, strict=True))
    return [tokens[number] for number in ids[1:]]


def parse(ids: list[int]) -> Parsed:
    """sequence := 9999 edge^n query^m; edge := name name; query := (9000+k) name 9500 name."""

    def name(at: int) -> tuple[Name, int]:
        if 1 <= ids[at] <= 50:
            assert 51 <= ids[at + 1] <= 100
            return (ids[at], ids[at + 1]), at + 2
        assert 51 <= ids[at] <= 100
        return (ids[at],), at + 1

    assert ids[0] == 9999
    at, after = 1, dict[Name, Name]()
    while at < len(ids) and ids[at] <= 100:
        start, at = name(at)
        end, at = name(at)
        assert start not in after
        after[start] = end
    context_tokens = at - 1

    labels = [0] * at
    queries: list[tuple[int, Name, Name]] = []
    while at < len(ids):
        k = ids[at] - 9000
        assert 1 <= k < 500
        start, marker = name(at + 1)
        assert ids[marker] == 9500
        answer, end = name(marker + 1)
        labels += [0] * (marker - at) + [1] * (end - marker)
        queries.append((k, start, answer))
        at = end
    return Parsed(after, queries, labels, context_tokens)


def check(parsed: Parsed, hops: int) -> None:
    """One cycle, distinct starts, right answers."""
    after, queries = parsed.after, parsed.queries
    first = next(iter(after))
    cycle = [first]
    while after[cycle[-1]] != first:
        cycle.append(after[cycle[-1]])
        assert len(cycle) <= len(after)
    assert set(cycle) == set(after)
    assert len({start for _, start, _ in queries}) == len(queries)
    for k, start, answer in queries:
        assert 1 <= k <= hops
        for _ in range(k):
            start = after[start]
        assert start == answer


def paper(layout: Layout = "row") -> DepoConfig:
    return DepoConfig(
        grammar="official", nodes=75, min_nodes=3, hops=16, questions=10, layout=layout
    )


def rows(config: DepoConfig, split: str, count: int) -> list[list[int]]:
    return Depo(config).batch(split, range(count)).stream.inputs.tolist()


def test_the_recipe_is_at_the_papers_size() -> None:
    """Four windows of cycle that are slept on, and the questions in a fifth that stays open."""
    config = load_experiment(Path(__file__).parents[2] / "recipes" / "depo.toml")
    assert config.task == paper()
    assert (config.model.width, len(config.model.layers)) == (512, 10)
    assert [at for at, kind in enumerate(config.model.layers) if kind == "attn"] == [4, 9]
    targets = Depo(paper()).batch("train", range(8)).stream.targets
    assert cut_training(targets, config.sleep) == [
        *(
            Segment(start, start + 75, config.sleep.passes, True, keeps_hidden=False)
            for start in range(0, 300, 75)
        ),
        Segment(300, 360, 1, False),
    ]


@pytest.mark.parametrize("split", SPLITS)
def test_rows_are_official_sequences(split: str) -> None:
    batch = Depo(paper()).batch(split, range(100)).stream
    assert batch.inputs.shape == (100, 360)
    for tokens, targets, answers, groups in zip(
        batch.inputs.tolist(),
        batch.targets.tolist(),
        batch.answers.tolist(),
        batch.groups.tolist(),
        strict=True,
    ):
        parsed = parse(to_official_ids(tokens, 16))
        check(parsed, 16)
        size = len(parsed.after)
        assert size == 75 if split != "train" else 3 <= size <= 75
        assert len(parsed.queries) == min(size, 10)

        # Padding is left of the cycle and right of the last answer, and nowhere else.
        asked = len(parsed.labels) - 1 - parsed.context_tokens
        left, right = 300 - parsed.context_tokens, 60 - asked
        assert [token == 0 for token in tokens] == [
            *[True] * left,
            *[False] * (parsed.context_tokens + asked),
            *[True] * right,
        ]

        # Loss on the marker and the answer, where the token before each of them is read.
        labels = [0] * left + parsed.labels[1:] + [0] * right
        scored = [*labels[1:], 0]
        following = [*tokens[1:], 0]
        assert targets == [
            token if label else NO_LOSS for token, label in zip(following, scored, strict=True)
        ]
        expected_answers, expected_groups = list[int](), list[int]()
        for number, (k, _, answer) in enumerate(parsed.queries):
            expected_answers += [number] * (1 + len(answer))
            expected_groups += [k] * (1 + len(answer))
        assert [answer for answer in answers if answer != -1] == expected_answers
        assert [group for group in groups if group != -1] == expected_groups


def test_forks_hold_one_question_each() -> None:
    batch = Depo(paper("forked")).batch("train", range(200))
    asked = batch.questions
    assert asked is not None
    assert batch.stream.inputs.shape == (200, 300)
    assert asked.inputs.shape == (200, 10, 5)
    for row, tokens in enumerate(batch.stream.inputs.tolist()):
        size = len(parse(to_official_ids(tokens, 16)).after)
        starts = set[Name]()
        for number in range(10):
            fork = Labelled(
                *(
                    column[row, number]
                    for column in (asked.inputs, asked.targets, asked.answers, asked.groups)
                )
            )
            inputs, targets = fork.inputs.tolist(), fork.targets.tolist()
            if number >= size:
                assert inputs == [0] * 5
                assert targets == [NO_LOSS] * 5
                continue
            # Behind the last scored position: the token it predicts, if there is room, and padding.
            last = max(at for at, target in enumerate(targets) if target != NO_LOSS)
            assert inputs[last + 1 :] == [targets[last], 0, 0, 0][: 4 - last]
            whole = tokens + inputs[: last + 1] + [targets[last]]
            parsed = parse(to_official_ids(whole, 16))
            check(parsed, 16)
            [(k, start, answer)] = parsed.queries
            starts.add(start)
            first = len(start)  # the hop, and all of the start but its last token
            assert targets == [NO_LOSS] * first + [117, *answer] + [NO_LOSS] * (4 - last)
            assert {*fork.answers.tolist()} == {-1, number}
            assert {*fork.groups.tolist()} == {-1, k}
        assert len(starts) == min(size, 10)


@pytest.mark.parametrize("layout", ["row", "forked"])
def test_masked_padding_is_the_same_stream_behind_a_mask(layout: Layout) -> None:
    """The examples are those of padding that is read; the mask hides it, and nothing else."""
    read = Depo(paper(layout)).batch("train", range(50))
    masked = Depo(DepoConfig(**{**paper(layout).to_dict(), "padding": "masked"}))
    hidden = masked.batch("train", range(50))
    assert read.mask is None
    assert hidden.mask is not None
    for name in ("inputs", "targets", "answers", "groups"):
        assert torch.equal(getattr(read.stream, name), getattr(hidden.stream, name))
    assert torch.equal(hidden.mask, hidden.stream.inputs != 0)
    assert 0 < hidden.mask.double().mean() < 1


def test_names_have_the_published_statistics() -> None:
    parsed = [parse(to_official_ids(row, 16)) for row in rows(paper(), "validation", 200)]
    lengths = [p.context_tokens for p in parsed]
    asked = [len(p.labels) - 1 - p.context_tokens for p in parsed]
    names = [name for p in parsed for name in p.after]
    assert min(lengths) >= 210
    assert max(lengths) <= 270
    assert np.mean(lengths) == pytest.approx(240, abs=3)
    assert min(asked) >= 42
    assert max(asked) <= 60
    assert np.mean([len(name) == 1 for name in names]) == pytest.approx(0.40, abs=0.01)
    assert {name[-1] for name in names} == set(range(51, 101))
    assert {name[0] for name in names if len(name) == 2} == set(range(1, 51))


def test_short_names_are_as_likely_as_long_ones_before_redraws() -> None:
    config = DepoConfig(grammar="official", nodes=2, questions=1, hops=3)
    names = [name for row in rows(config, "train", 3000) for name in parse_names(row)]
    share = np.mean([len(name) == 1 for name in names])
    # A second short name equals the first in one draw of 50, and is then drawn anew.
    assert share == pytest.approx(0.4975, abs=4.5 * 0.5 / 6000**0.5)
    for position, tokens in ((0, range(1, 51)), (-1, range(51, 101))):
        counts = Counter(name[position] for name in names if len(name) == 2)
        expected = sum(counts.values()) / 50
        assert max(abs(counts[token] - expected) for token in tokens) < 4.5 * expected**0.5


def parse_names(row: list[int]) -> list[Name]:
    return list(parse(to_official_ids(row, 3)).after)


def test_name_lengths_do_not_cluster_on_the_cycle() -> None:
    """Late draws are longer, as short names run out; the order on the cycle must not show it."""
    config = DepoConfig(grammar="official", nodes=300, hops=16, questions=1)
    pairs = [
        (len(a), len(b))
        for row in rows(config, "train", 100)
        for a, b in parse(to_official_ids(row, 16)).after.items()
    ]
    correlation = np.corrcoef(np.array(pairs).T)[0, 1]
    assert abs(correlation) < 4.5 / len(pairs) ** 0.5


def test_training_sizes_have_the_published_mean() -> None:
    sizes = [len(parse(to_official_ids(row, 16)).after) for row in rows(paper(), "train", 1500)]
    weights = {size: 1 / (size + 75**0.5) for size in range(3, 76)}
    mean = sum(size * weight for size, weight in weights.items()) / sum(weights.values())
    assert mean == pytest.approx(27.5, abs=0.5)
    assert np.mean(sizes) == pytest.approx(mean, abs=4.5 * 20 / 1500**0.5)
    assert (min(sizes), max(sizes)) == (3, 75)


def test_cycles_never_cross_splits() -> None:
    drawn: dict[str, set[frozenset[tuple[Name, Name]]]] = {}
    for split in SPLITS:
        config = DepoConfig(grammar="official", nodes=2, questions=1, hops=3)
        sequences = [to_official_ids(row, 3) for row in rows(config, split, 20_000)]
        edges = [frozenset(parse(ids).after.items()) for ids in sequences]
        # Pairs of short names are few enough to come up again and again.
        drawn[split] = {e for e in edges if all(len(name) == 1 for name, _ in e)}
    union = set.union(*drawn.values())
    assert sum(map(len, drawn.values())) == len(union)
    assert len(union) > 0.95 * 50 * 49 / 2


def test_many_nodes_exhaust_the_names() -> None:
    config = DepoConfig(grammar="official", nodes=2550, questions=1, hops=3)
    parsed = parse(to_official_ids(rows(config, "train", 1)[0], 3))
    check(parsed, 3)
    assert len(parsed.after) == 2550


def test_examples_name_nodes_by_their_tokens() -> None:
    task = Depo(paper("forked"))
    example = task.example("test", 3)
    asked = task.batch("test", [3]).questions
    assert asked is not None
    assert example.targets == tuple(asked.targets[asked.targets != NO_LOSS].tolist())
    named = [[117, *map(int, answer.split("."))] for answer in example.answers]
    assert example.targets == tuple(token for answer in named for token in answer)
    assert task.floors() == {"chance": pytest.approx(1 / 74)}


def test_official_ids_round_trip() -> None:
    assert to_official_ids([0, 0, 7, 51, 101, 116, 117, 0], 16) == [9999, 7, 51, 9001, 9016, 9500]
    assert from_official_ids([9999, 7, 51, 9001, 9016, 9500], 16) == [7, 51, 101, 116, 117]


@pytest.mark.skipif(
    not (Path(REFERENCE) / "depo_sample.jsonl").is_file() or not REFERENCE,
    reason="SLOWWAVE_REFERENCE_DATA names no folder that holds depo_sample.jsonl",
)
def test_published_sequences_read_the_same() -> None:
    lines = (Path(REFERENCE) / "depo_sample.jsonl").read_text("utf-8").splitlines()
    assert lines
    for line in lines:
        sample = json.loads(line)
        parsed = parse(sample["tokens"])
        check(parsed, 16)
        assert len(parsed.after) == sample["n"]
        assert len(parsed.queries) == min(sample["n"], 10)
        assert parsed.labels == sample["labels"]
        assert parsed.queries == [
            (query["k"], tuple(query["start"]), tuple(query["answer"]))
            for query in sample["queries"]
        ]
        ours = from_official_ids(sample["tokens"], 16)
        assert torch.tensor(ours).max() < Depo(paper()).vocab_size
        assert to_official_ids(ours, 16) == sample["tokens"]
