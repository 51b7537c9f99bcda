"""Depo in the compact grammar, against an oracle that reads tokens and follows edges."""

import math
from collections import Counter
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slowwave.sleep.schedule import NO_LOSS
from slowwave.tasks.depo import DepoConfig
from slowwave.tasks.depo.task import Depo
from slowwave.tasks.draws import SPLITS

Layout = Literal["row", "forked"]
LAYOUTS: tuple[Layout, ...] = ("row", "forked")


def read_cycle(tokens: list[int], config: DepoConfig) -> dict[int, int]:
    """The edges of a context, which must be one cycle after nothing but padding."""
    padding = config.nodes + config.hops
    while tokens[0] == padding:
        tokens = tokens[1:]
    after = dict(zip(tokens[::2], tokens[1::2], strict=True))
    assert 2 * len(after) == len(tokens)
    assert set(after) <= set(range(config.nodes))
    node, seen = tokens[0], set[int]()
    while node not in seen:
        seen.add(node)
        node = after[node]
    assert seen == set(after)
    return after


def solve(after: dict[int, int], hop_token: int, start: int, config: DepoConfig) -> int:
    for _ in range(hop_token - config.nodes + 1):
        start = after[start]
    return start


def canonical(after: dict[int, int]) -> tuple[int, ...]:
    nodes = [min(after)]
    while after[nodes[-1]] != nodes[0]:
        nodes.append(after[nodes[-1]])
    return tuple(nodes)


def draw_cycles(config: DepoConfig, split: str, count: int) -> list[tuple[int, ...]]:
    streams = Depo(config).batch(split, range(count)).stream.inputs[:, : 2 * config.nodes]
    return [canonical(read_cycle(row, config)) for row in streams.tolist()]


@st.composite
def configs(draw: st.DrawFn) -> DepoConfig:
    nodes = draw(st.integers(6, 14))
    return DepoConfig(
        nodes=nodes,
        min_nodes=draw(st.none() | st.integers(2, nodes)),
        hops=draw(st.integers(1, 2 * nodes)),
        questions=draw(st.integers(1, 12)),
        layout=draw(st.sampled_from(LAYOUTS)),
    )


@given(config=configs(), split=st.sampled_from(SPLITS), index=st.integers(0, 2**62))
def test_answers_equal_the_oracle(config: DepoConfig, split: str, index: int) -> None:
    task = Depo(config)
    batch = task.batch(split, [index])
    stream = batch.stream.inputs[0].tolist()
    after = read_cycle(stream[: 2 * config.nodes], config)
    assert (config.min_nodes or config.nodes) <= len(after) <= config.nodes
    assert split == "train" or len(after) == config.nodes

    if batch.questions is not None:
        asked, numbers = batch.questions, [[0, i] for i in range(config.questions)]
        assert asked.inputs.shape == (1, config.questions, 2)
        questions = asked.inputs[0].tolist()
    else:
        asked, numbers = batch.stream, [[2 * config.nodes + 3 * i] for i in range(config.questions)]
        assert len(stream) == 2 * config.nodes + 3 * config.questions
        questions = [stream[i : i + 2] for [i] in numbers]

    expected = torch.full_like(asked.targets, NO_LOSS)
    answers = torch.full_like(asked.answers, -1)
    groups = torch.full_like(asked.groups, -1)
    for i, (hop, start) in enumerate(questions):
        at = (0, i, 1) if batch.questions is not None else (0, numbers[i][0] + 1)
        expected[at] = solve(after, hop, start, config)
        answers[at] = i
        groups[at] = hop - config.nodes + 1
        if batch.questions is None:
            assert stream[at[1] + 1] == expected[at]
    assert torch.equal(asked.targets, expected)
    assert torch.equal(asked.answers, answers)
    assert torch.equal(asked.groups, groups)


@given(config=configs(), split=st.sampled_from(SPLITS), index=st.integers(0, 2**62))
def test_unary_questions_ask_the_same(config: DepoConfig, split: str, index: int) -> None:
    """Cycle, questions and answers are those of a token for each k, which the oracle knows."""
    unary = Depo(DepoConfig.from_dict({**config.to_dict(), "counting": "unary"}))
    more = Depo(DepoConfig.from_dict({**unary.config.to_dict(), "hops": 3 * config.hops}))
    assert unary.vocab_size == more.vocab_size == config.nodes + 2
    example, same = unary.example(split, index), Depo(config).example(split, index)
    assert (example.questions, example.targets) == (same.questions, same.targets)
    assert example.context == same.context

    batch = unary.batch(split, [index])
    labelled = batch.stream if batch.questions is None else batch.questions
    hop, padding = config.nodes, config.nodes + 1
    for number, (question, answer) in enumerate(zip(same.questions, same.targets, strict=True)):
        (at,) = (labelled.answers[0] == number).nonzero().tolist()
        *row, place = at
        count, start = int(question.split()[0]), int(question.split()[-1])
        assert labelled.groups[0, *at] == count
        assert labelled.targets[0, *at] == answer
        tokens = labelled.inputs[0, *row].tolist()
        assert tokens[place - count : place + 1] == [hop] * count + [start]
        if batch.questions is not None:
            assert place == count
            assert set(tokens[place + 2 :]) <= {padding}
        else:
            assert tokens[place - count - 1] != hop
            assert tokens[place + 1 : place + 2] in ([answer], [])


def test_cycles_never_cross_splits() -> None:
    """Whatever the layout, hops and sizes: the cycle alone decides. All cycles are drawn."""
    plain = DepoConfig(nodes=6, questions=1, layout="forked")
    mixed = DepoConfig(nodes=6, min_nodes=2, questions=2, hops=9, layout="row")
    drawn = {
        split: {*draw_cycles(plain, split, 3000), *draw_cycles(mixed, split, 1000)}
        for split in SPLITS
    }
    full = {split: {c for c in cycles if len(c) == 6} for split, cycles in drawn.items()}
    assert sum(map(len, drawn.values())) == len(set.union(*drawn.values()))
    assert len(set.union(*full.values())) == math.factorial(5)
    assert {len(cycle) for cycle in drawn["train"]} == {2, 3, 4, 5, 6}


def test_questions_are_drawn_anew_in_every_split() -> None:
    task = Depo(DepoConfig())
    hops = [task.batch(split, [0]).questions for split in SPLITS]
    assert len({str(asked and asked.inputs[..., 0].tolist()) for asked in hops}) == 3


def test_small_cycles_are_of_any_nodes() -> None:
    cycles = draw_cycles(DepoConfig(nodes=6, min_nodes=2, questions=1), "train", 2000)
    counts = Counter(node for cycle in cycles if len(cycle) == 3 for node in cycle)
    expected = counts.total() / 6
    # Uniform but for the few cycles that belong to other splits.
    assert all(abs(counts[node] - expected) < 0.25 * expected for node in range(6))


def test_cycles_are_uniform_inside_a_split() -> None:
    counts = Counter(draw_cycles(DepoConfig(nodes=6, questions=1), "train", 10_000))
    expected = 10_000 / len(counts)
    assert max(abs(count - expected) for count in counts.values()) < 4.5 * expected**0.5


def test_edges_hops_and_starts_are_uniform() -> None:
    task = Depo(DepoConfig(nodes=10, hops=6, questions=4))
    batch = task.batch("train", range(5000))
    assert batch.questions is not None
    columns = [
        (batch.stream.inputs, 10, 0),
        (batch.questions.inputs[..., 0], 6, 10),
        (batch.questions.inputs[..., 1], 10, 0),
    ]
    for tokens, kinds, first in columns:
        for column in tokens.T:
            counts = torch.bincount(column - first, minlength=kinds)
            assert len(counts) == kinds
            assert (counts - 5000 / kinds).abs().max() < 4.5 * (5000 / kinds) ** 0.5
    pairs = batch.questions.inputs.reshape(-1, 2).tolist()
    assert len({tuple(pair) for pair in pairs}) == 60


def test_edges_are_shuffled() -> None:
    """The next edge follows the last one on the cycle as often as any other edge does."""
    stream = Depo(DepoConfig()).batch("train", range(5000)).stream.inputs.reshape(5000, 10, 2)
    follows = (stream[:, :-1, 1] == stream[:, 1:, 0]).double().mean(dim=0)
    assert (follows - 1 / 9).abs().max() < 4.5 * (1 / 9 / 5000) ** 0.5


def test_sizes_have_their_weights() -> None:
    config = DepoConfig(nodes=10, min_nodes=3, questions=1)
    counts = Counter(map(len, draw_cycles(config, "train", 8000)))
    weights = {size: 1 / (size + 10**0.5) for size in range(3, 11)}
    for size, weight in weights.items():
        expected = 8000 * weight / sum(weights.values())
        assert abs(counts[size] - expected) < 4.5 * expected**0.5
    assert set(map(len, draw_cycles(config, "test", 300))) == {10}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_min_nodes_equal_to_nodes_needs_no_padding(layout: Layout) -> None:
    assert Depo(DepoConfig(layout=layout)).vocab_size == 16
    assert Depo(DepoConfig(layout=layout, min_nodes=10)).vocab_size == 16
    assert Depo(DepoConfig(layout=layout, min_nodes=9)).vocab_size == 17


@pytest.mark.parametrize(("nodes", "hops", "questions"), [(10, 6, 40), (6, 20, 15)])
def test_floors_are_what_guessers_and_copiers_score(nodes: int, hops: int, questions: int) -> None:
    config = DepoConfig(nodes=nodes, hops=hops, questions=questions, layout="row")
    rows = Depo(config).batch("test", range(4000)).stream.inputs[:, 2 * nodes :].tolist()
    guessed, copied = [], []
    for row in rows:
        memory: dict[tuple[int, int], int] = {}
        for hop, start, answer in zip(row[::3], row[1::3], row[2::3], strict=True):
            kind = ((hop - nodes + 1) % nodes, start)
            guess = 1.0 * (answer == start) if kind[0] == 0 else (answer != start) / (nodes - 1)
            guessed.append(guess)
            copied.append(1.0 * (memory[kind] == answer) if kind in memory else guess)
            memory[kind] = answer
    floors = Depo(config).floors()
    assert sum(guessed) / len(guessed) == pytest.approx(floors["chance"], abs=0.006)
    assert sum(copied) / len(copied) == pytest.approx(floors["copy"], abs=0.006)


def test_the_copier_of_forty_questions_scores_a_third() -> None:
    row = Depo(DepoConfig(nodes=10, hops=6, questions=40, layout="row"))
    assert row.floors() == pytest.approx({"chance": 1 / 9, "copy": 0.35}, abs=0.01)
    assert Depo(DepoConfig(layout="forked")).floors() == {"chance": pytest.approx(1 / 9)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_examples_are_what_batches_hold(layout: Layout) -> None:
    config = DepoConfig(layout=layout, min_nodes=3, questions=7)
    task = Depo(config)
    example = task.example("train", 11)
    batch = task.batch("train", [11])
    after = read_cycle(list(example.tokens[:20]), config)
    asked = batch.questions or batch.stream
    assert example.tokens == tuple(batch.stream.inputs[0].tolist())
    assert set(example.context) == {f"{a}>{b}" for a, b in after.items()}
    answers: list[int] = []
    for question in example.questions:
        hops, _, _, start = question.split()
        answers.append(solve(after, config.nodes - 1 + int(hops), int(start), config))
    assert example.targets == tuple(answers)
    assert example.answers == tuple(map(str, answers))
    assert asked.targets[asked.targets != NO_LOSS].tolist() == answers
    text = task.render(example)
    assert all(f"{q}: {a}" in text for q, a in zip(example.questions, example.answers, strict=True))
