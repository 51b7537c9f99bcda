"""What holds for every task: pure rows, honest arguments, labels inside the vocabulary."""

import dataclasses
import hashlib
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from slowwave.sleep.objective import Batch, Labelled
from slowwave.sleep.schedule import NO_LOSS
from slowwave.tasks import TaskConfig, make_task
from slowwave.tasks.base import Task
from slowwave.tasks.conversation import ConversationConfig
from slowwave.tasks.depo import DepoConfig
from slowwave.tasks.draws import SPLITS
from slowwave.tasks.gsm_infinite import GsmInfiniteConfig
from slowwave.tasks.recall import RecallConfig
from slowwave.tasks.rule110 import Rule110Config
from slowwave.tasks.text import TextConfig

OFFICIAL = DepoConfig(grammar="official", nodes=20, min_nodes=3, hops=7, questions=5, layout="row")
LICENSE = str(Path(__file__).parents[2] / "LICENSE")
WORD_PROBLEMS = GsmInfiniteConfig(
    subset="hard", mode="mixed", ops=(1, 4), distractors="surface", length=(70, 120)
)
TALK = ConversationConfig(
    window=150, windows=2, people=2, corrected=0.3, questions=4, question_tokens=100
)
CONFIGS: list[TaskConfig] = [
    Rule110Config(width=7, steps=3),
    DepoConfig(),
    DepoConfig(layout="row", min_nodes=3),
    OFFICIAL,
    DepoConfig(**{**OFFICIAL.to_dict(), "layout": "forked"}),
    RecallConfig(window=18, questions=7),
    TextConfig(files=(LICENSE,), window=16, context=40, piece=64),
    DepoConfig(**{**OFFICIAL.to_dict(), "padding": "masked"}),
    DepoConfig(min_nodes=3, padding="masked"),
    WORD_PROBLEMS,
    dataclasses.replace(
        WORD_PROBLEMS, grammar="words", question="last", length=(200, 400), context_tokens=400
    ),
    TALK,
]


@pytest.fixture(params=CONFIGS, ids=str)
def task(request: pytest.FixtureRequest) -> Task:
    return make_task(request.param)


def parts(batch: Batch) -> list[Labelled]:
    return [batch.stream] if batch.questions is None else [batch.stream, batch.questions]


def columns(batch: Batch) -> list[torch.Tensor]:
    labelled = [
        column
        for part in parts(batch)
        for column in (part.inputs, part.targets, part.answers, part.groups)
    ]
    return labelled if batch.mask is None else [*labelled, batch.mask]


def same(one: Batch, other: Batch) -> bool:
    return all(map(torch.equal, columns(one), columns(other)))


@pytest.mark.parametrize("split", SPLITS)
def test_a_row_depends_on_its_index_alone(task: Task, split: str) -> None:
    indices = [3, 0, 2**62, 3, 41, 2**40]
    together = columns(task.batch(split, indices))
    for row, index in enumerate(indices):
        alone = columns(make_task(task.config).batch(split, [index]))
        assert all(torch.equal(a[row], b[0]) for a, b in zip(together, alone, strict=True))
    different = task.batch(split, [0, 2**62, 2**32, 2**40, 1]).stream.inputs
    assert len(different.unique(dim=0)) == 5


def test_global_generators_change_nothing_and_are_left_alone(task: Task) -> None:
    before = task.batch("train", [1, 2])
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    states = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    assert same(before, task.batch("train", [1, 2]))
    assert random.getstate() == states[0]
    assert str(np.random.get_state()) == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


PINNED = (
    "68fe37c540f1b44f",
    "ae284f8bd6669166",
    "b93376a1d493d248",
    "6d75275ef17ae0bd",
    "3a608048f8798cc4",
    "a709e6d41d42f30b",
    "511c2624692dddcd",
    "55eb66aa657aed64",
    "387594d0f9e8eb36",
    "633b7a0563cb820c",
    "d3bc7e083ae2f3f9",
    "ae9958af584a8a72",
)


@pytest.mark.parametrize(("config", "digest"), [*zip(CONFIGS, PINNED, strict=True)], ids=str)
def test_content_is_pinned(config: TaskConfig, digest: str) -> None:
    """Recorded runs name examples by index; whoever changes this makes them another data set."""
    rows = [make_task(config).batch(split, [0, 1, 2**40]) for split in SPLITS]
    text = str([column.tolist() for batch in rows for column in columns(batch)])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest


def test_indices_may_be_any_sequence(task: Task) -> None:
    expected = task.batch("test", [4, 5, 6])
    assert same(expected, task.batch("test", range(4, 7)))
    assert same(expected, task.batch("test", np.array([4, 5, 6], dtype=np.int64)))
    assert same(expected, task.batch("test", torch.tensor([4, 5, 6]).numpy()))


def test_splits_differ(task: Task) -> None:
    streams = [task.batch(split, [0]).stream.inputs for split in SPLITS]
    assert not torch.equal(streams[0], streams[1])
    assert not torch.equal(streams[1], streams[2])


@pytest.mark.parametrize(
    ("split", "indices", "message"),
    [
        ("valid", [0], "^split is 'valid'; use train, validation or test$"),
        ("train", [3, -1], r"^indices hold -1; use 0 to 2\*\*62$"),
        ("train", [2**62 + 1], r"^indices hold \d+; use 0 to 2\*\*62$"),
        ("train", [2**64], "^indices have .* dtype object; give a list"),
        ("train", [0.5], "^indices have .* dtype float64; give a list"),
        ("train", [], r"^indices have shape \(0,\)"),
        ("train", 3, r"^indices have shape \(\)"),
        ("train", [[1]], r"^indices have shape \(1, 1\)"),
    ],
)
def test_wrong_arguments_are_refused(
    task: Task, split: str, indices: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        task.batch(split, indices)


@pytest.mark.parametrize("split", SPLITS)
def test_labels_keep_the_contract(task: Task, split: str) -> None:
    batch = task.batch(split, range(64))
    for part in parts(batch):
        tensors = (part.inputs, part.targets, part.answers, part.groups)
        assert all(tensor.dtype == torch.int64 for tensor in tensors)
        assert all(tensor.shape == part.inputs.shape for tensor in tensors)
        assert all(tensor.is_contiguous() for tensor in tensors)
        scored = part.targets != NO_LOSS
        assert torch.equal(part.answers >= 0, scored)
        assert torch.equal(part.groups >= 0, scored)
        assert part.answers.min() >= -1
        assert 0 <= part.inputs.min() <= part.inputs.max() < task.vocab_size
        assert scored.logical_not().all() or part.targets[scored].max() < task.vocab_size
    if batch.mask is not None:
        assert batch.mask.dtype == torch.bool
        assert batch.mask.shape == batch.stream.inputs.shape
        assert (batch.stream.targets[~batch.mask] == NO_LOSS).all()
    context, rest = batch.stream.targets.split(
        [task.context_tokens, batch.stream.targets.shape[1] - task.context_tokens], dim=1
    )
    assert (context == NO_LOSS).all()
    asked = rest if batch.questions is None else batch.questions.targets
    assert asked.shape[-1] == task.prediction_tokens
    assert (asked != NO_LOSS).flatten(1).any(dim=1).all()
    if batch.questions is None:
        assert rest.shape[1] == task.prediction_tokens
    elif task.context_tokens:
        assert rest.shape[1] == 0


def test_every_group_is_reached(task: Task) -> None:
    groups = torch.cat([part.groups.ravel() for part in parts(task.batch("test", range(200)))])
    assert set(groups.tolist()) - {-1} == set(task.groups)


def test_groups_have_labels_of_their_own(task: Task) -> None:
    assert len(set(task.group_labels)) == len(task.groups)


def test_every_token_is_used(task: Task) -> None:
    if isinstance(task.config, ConversationConfig | TextConfig):
        pytest.skip("text need not hold every byte")
    both = [(part.inputs, part.targets) for part in parts(task.batch("train", range(400)))]
    seen = torch.cat([column.ravel() for columns in both for column in columns]).unique().tolist()
    assert [token for token in seen if token != NO_LOSS] == list(range(task.vocab_size))


def test_a_batch_moves(task: Task) -> None:
    moved = task.batch("test", [0]).to(torch.device("meta"))
    assert {column.device.type for column in columns(moved)} == {"meta"}


def test_floors_are_shares(task: Task) -> None:
    assert all(0 < floor < 1 for floor in task.floors().values())
