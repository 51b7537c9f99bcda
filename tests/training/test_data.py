"""The order of the training examples, and batches that are made ahead."""

from typing import Any

import pytest
import torch

from slowwave.tasks.rule110 import Rule110Config
from slowwave.tasks.rule110.task import Rule110
from slowwave.training.data import BatchesAhead, step_indices

CPU = torch.device("cpu")


def test_step_indices_are_pure_and_share_nothing() -> None:
    assert (step_indices(0, 7, 64) == step_indices(0, 7, 64)).all()
    drawn = [
        index for seed in (0, 1) for step in (0, 1, 2) for index in step_indices(seed, step, 64)
    ]
    assert len(set(drawn)) == len(drawn)
    assert all(0 <= index < 2**62 for index in drawn)


def test_batches_are_those_of_their_step_in_any_order() -> None:
    task = Rule110(Rule110Config(width=8, num_states=2, steps=2))
    batches = BatchesAhead(task, seed=3, batch_size=4, device=CPU)
    for step in (0, 1, 2, 7, 8, 0):
        expected = task.batch("train", step_indices(3, step, 4))
        assert torch.equal(batches.take(step).stream.inputs, expected.stream.inputs)


def test_the_next_batch_is_made_once_and_ahead() -> None:
    made: list[int] = []
    task: Any = Rule110(Rule110Config(width=8, num_states=2, steps=2))
    batches = BatchesAhead(task, seed=0, batch_size=2, device=CPU)
    make = batches._make

    def counted(step: int) -> Any:
        made.append(step)
        return make(step)

    batches._make = counted
    for step in range(3):
        batches.take(step)
    batches._ahead[3].result()
    assert made == [0, 1, 2, 3]


def test_a_task_that_fails_fails_the_step_that_wants_it() -> None:
    class Broken:
        def batch(self, split: str, indices: Any) -> Any:
            raise ValueError("no such example")

    broken: Any = Broken()
    with pytest.raises(ValueError, match="no such example"):
        BatchesAhead(broken, seed=0, batch_size=2, device=CPU).take(0)
