"""Scores a model on a task: greedy and sampled exact match, token accuracy and loss, by group."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from slowwave.models.backbone import HybridLM
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.objective import ScoredTokens, plan_batch, predict
from slowwave.tasks.base import Task


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """Means over answers; an answer is right when all of its tokens are."""

    exact: float
    """Share of answers whose tokens are all the most likely ones (greedy decoding)."""
    sampled: float
    """Mean probability of drawing the whole answer: the product of its tokens' probabilities."""
    token_accuracy: float
    """Share of single tokens that are the most likely ones."""
    loss: float
    """Mean negative log-likelihood in nats a token."""
    answers: int
    """Number of answers scored."""

    def to_dict(self) -> dict[str, float]:
        """The score as a plain dictionary."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """What one model scored on one split, slept with `passes`; groups go by their labels."""

    split: str
    passes: int
    flops: int
    """Computed for all of its answers, contexts included; see `Plan.flops`."""
    overall: Score
    groups: dict[str, Score]

    def to_dict(self) -> dict[str, object]:
        """The record as plain dictionaries."""
        groups = {label: score.to_dict() for label, score in self.groups.items()}
        return {
            "split": self.split,
            "passes": self.passes,
            "flops": self.flops,
            "overall": self.overall.to_dict(),
            "groups": groups,
        }


class Scored(NamedTuple):
    """How far a scoring is: `done` of the `examples` of a split, slept with `passes`."""

    split: str
    passes: int
    done: int
    examples: int


def evaluate(
    model: HybridLM,
    task: Task,
    *,
    sleep: SleepConfig,
    split: str = "test",
    examples: int = 512,
    batch_size: int = 64,
    passes: tuple[int, ...] | None = None,
    on_scored: Callable[[Scored], object] | None = None,
) -> list[Record]:
    """Scores examples 0..examples-1 of `split` for every N in `passes` (the trained N if None).

    on_scored: is told before each batch, and at the end of each N.
    """
    tell = on_scored or (lambda _: None)
    records: list[Record] = []
    labels = task.groups
    with torch.no_grad():
        for count in passes or (sleep.passes,):
            slept = dataclasses.replace(sleep, passes=count)
            scored: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
            flops = 0
            for start in range(0, examples, batch_size):
                tell(Scored(split, count, start, examples))
                rows = range(start, min(start + batch_size, examples))
                batch = task.batch(split, rows).to(model.device)
                plan = plan_batch(batch, slept)
                scored.append(_per_token(predict(model, batch, plan)))
                flops += plan.flops(model.config)
            tell(Scored(split, count, examples, examples))
            records.append(Record(split, count, flops, *_summarise(scored, labels)))
    return records


def _per_token(tokens: ScoredTokens) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(right, log-likelihood, answer, group) of every scored token, on the CPU."""
    log_likelihood = torch.log_softmax(tokens.logits.double(), dim=-1)
    own = log_likelihood.gather(-1, tokens.targets[:, None])[:, 0]
    right = tokens.logits.argmax(-1) == tokens.targets
    return right.cpu(), own.cpu(), tokens.answers.cpu(), tokens.groups.cpu()


def _summarise(
    batches: list[tuple[Tensor, Tensor, Tensor, Tensor]], labels: dict[int, str]
) -> tuple[Score, dict[str, Score]]:
    """The score of all answers, and that of every group that has any."""
    offset = 0
    shifted: list[Tensor] = []
    for _, _, answers, _ in batches:
        shifted.append(answers + offset)
        offset += int(answers.max()) + 1
    right = torch.cat([batch[0] for batch in batches])
    own = torch.cat([batch[1] for batch in batches])
    answers, groups = torch.cat(shifted), torch.cat([batch[3] for batch in batches])
    by_group: dict[str, Score] = {}
    for group, label in labels.items():
        inside = groups == group
        if bool(inside.any()):
            by_group[label] = _score(right[inside], own[inside], answers[inside])
    return _score(right, own, answers), by_group


def _score(right: Tensor, own: Tensor, answers: Tensor) -> Score:
    _, index = answers.unique(return_inverse=True)
    count = int(index.max()) + 1
    all_right = torch.ones(count, dtype=torch.float64).scatter_reduce(
        0, index, right.double(), "amin"
    )
    joint = torch.zeros(count, dtype=torch.float64).index_add(0, index, own).exp()
    return Score(
        exact=all_right.mean().item(),
        sampled=joint.mean().item(),
        token_accuracy=right.double().mean().item(),
        loss=-own.mean().item(),
        answers=count,
    )
