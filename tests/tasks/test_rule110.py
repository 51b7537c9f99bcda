"""Rule 110 against a cell-by-cell oracle, its floors against the published ones."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slowwave.sleep.schedule import NO_LOSS
from slowwave.tasks.draws import SPLITS, belongs_to
from slowwave.tasks.rule110 import Rule110Config
from slowwave.tasks.rule110.task import QUERY, Rule110, evolve, state_hash

NEXT_CELL = {
    (1, 1, 1): 0,
    (1, 1, 0): 1,
    (1, 0, 1): 1,
    (1, 0, 0): 0,
    (0, 1, 1): 1,
    (0, 1, 0): 1,
    (0, 0, 1): 1,
    (0, 0, 0): 0,
}

# steps: (share of ones, best constant %, marginal %), width 24, a million states.
PUBLISHED = {
    4: (0.535, 8.2, 6.4),
    8: (0.541, 8.6, 6.4),
    10: (0.544, 8.8, 6.5),
    12: (0.543, 8.7, 6.4),
    14: (0.554, 9.4, 6.6),
    16: (0.556, 9.5, 6.6),
    24: (0.559, 9.8, 6.6),
    32: (0.562, 9.9, 6.6),
}


def solve(cells: list[int], steps: int) -> list[int]:
    for _ in range(steps):
        count = len(cells)
        cells = [
            NEXT_CELL[cells[(i - 1) % count], cells[i], cells[(i + 1) % count]]
            for i in range(count)
        ]
    return cells


def solve_stream(tokens: list[int], config: Rule110Config) -> list[int]:
    starts = range(0, config.num_states * config.width, config.width)
    return [solve(tokens[start : start + config.width], config.steps)[0] for start in starts]


@given(data=st.data(), width=st.integers(2, 64), steps=st.integers(0, 40))
def test_evolve_equals_the_oracle(data: st.DataObject, width: int, steps: int) -> None:
    cells = data.draw(st.lists(st.integers(0, 1), min_size=width, max_size=width))
    word = sum(cell << position for position, cell in enumerate(cells))
    evolved = int(evolve(np.array([word], dtype=np.uint64), width, steps)[0])
    assert [evolved >> position & 1 for position in range(width)] == solve(cells, steps)
    assert evolved < 2**width


@given(
    config=st.builds(
        Rule110Config,
        width=st.integers(6, 64),
        num_states=st.integers(1, 5),
        steps=st.integers(0, 20),
    ),
    split=st.sampled_from(SPLITS),
    index=st.integers(0, 2**62),
)
def test_labels_equal_the_oracle(config: Rule110Config, split: str, index: int) -> None:
    task = Rule110(config)
    batch = task.batch(split, [index, index + 1 if index < 2**62 else 0])
    stream = batch.stream
    assert batch.questions is None
    assert stream.inputs.shape == (2, task.context_tokens + task.prediction_tokens)
    for row in range(2):
        tokens = stream.inputs[row].tolist()
        labels = solve_stream(tokens, config)
        context = [NO_LOSS] * task.context_tokens
        assert set(tokens[: task.context_tokens]) <= {0, 1}
        assert tokens[task.context_tokens :] == [QUERY, *labels[:-1]]
        assert stream.targets[row].tolist() == context + labels


def test_states_and_labels_vary() -> None:
    stream = Rule110(Rule110Config(steps=8)).batch("train", range(2000)).stream
    cells = stream.inputs[:, :96].double()
    assert (cells.mean(dim=0) - 0.5).abs().max() < 4.5 * 0.5 / 2000**0.5
    assert len(torch.unique(stream.inputs[:, :96].reshape(-1, 24), dim=0)) > 7990
    assert stream.answers[:, 96:].unique().tolist() == [0]
    assert stream.groups[:, 96:].tolist() == [[0, 1, 2, 3]] * 2000
    assert stream.answers[:, :96].unique().tolist() == [-1]
    assert stream.groups[:, :96].unique().tolist() == [-1]


@pytest.mark.parametrize("width", [6, 11])
def test_no_state_is_in_two_splits(width: int) -> None:
    """Whatever the steps and however many states: the state alone decides."""
    seen: dict[str, set[tuple[int, ...]]] = {}
    for split in SPLITS:
        states: list[tuple[int, ...]] = []
        for config in (
            Rule110Config(width=width, steps=0),
            Rule110Config(width=width, steps=9, num_states=2),
        ):
            stream = Rule110(config).batch(split, range(2000)).stream
            cells = stream.inputs[:, : config.num_states * width].reshape(-1, width)
            states += [tuple(state) for state in cells.tolist()]
        seen[split] = set(states)
    assert sum(map(len, seen.values())) == len(set.union(*seen.values()))
    assert len(set.union(*seen.values())) > 0.95 * 2**width


def test_states_are_uniform_inside_a_split() -> None:
    task = Rule110(Rule110Config(width=6))
    cells = task.batch("test", range(5000)).stream.inputs[:, :24].reshape(-1, 6)
    _, counts = torch.unique(cells, dim=0, return_counts=True)
    expected = 20_000 / len(counts)
    assert (counts - expected).abs().max() < 4.5 * expected**0.5


@pytest.mark.parametrize("steps", PUBLISHED)
def test_floors_equal_the_published_ones(steps: int) -> None:
    floors = Rule110(Rule110Config(steps=steps)).floors()
    bit, constant, marginal = PUBLISHED[steps]
    assert floors["bit"] == pytest.approx(bit, abs=0.003)
    assert 100 * floors["constant"] == pytest.approx(constant, abs=0.2)
    assert 100 * floors["marginal"] == pytest.approx(marginal, abs=0.1)


@pytest.mark.parametrize("width", [6, 9])
def test_floors_of_narrow_states_are_exact(width: int) -> None:
    words = np.arange(2**width, dtype=np.uint64)
    inside = words[belongs_to("test", state_hash(words, width))].tolist()
    labels = [solve([word >> cell & 1 for cell in range(width)], 3)[0] for word in inside]
    ones = sum(labels) / len(labels)
    floors = Rule110(Rule110Config(width=width, steps=3, num_states=3)).floors()
    assert floors["bit"] == pytest.approx(max(ones, 1 - ones))
    assert floors["constant"] == pytest.approx(max(ones, 1 - ones) ** 3)
    assert floors["marginal"] == pytest.approx((ones**2 + (1 - ones) ** 2) ** 3)


def test_a_constant_answer_scores_its_floor() -> None:
    task = Rule110(Rule110Config(steps=8))
    targets = task.batch("test", range(20_000)).stream.targets[:, 96:]
    floors = task.floors()
    assert (targets == 1).double().mean().item() == pytest.approx(floors["bit"], abs=0.008)
    exact = (targets == 1).all(dim=1).double().mean().item()
    assert exact == pytest.approx(floors["constant"], abs=0.009)


def test_examples_are_what_batches_hold() -> None:
    config = Rule110Config(width=8, steps=2, num_states=3)
    task = Rule110(config)
    example = task.example("validation", 5)
    stream = task.batch("validation", [5]).stream
    labels = solve_stream(list(example.tokens), config)
    assert example.tokens == tuple(stream.inputs[0].tolist())
    assert example.targets == tuple(labels)
    assert "".join(example.context) == "".join(map(str, example.tokens[:24]))
    text = task.render(example)
    assert all(f"state {i} after 2 steps: {label}" in text for i, label in enumerate(labels))
    assert all(cells in text for cells in example.context)
