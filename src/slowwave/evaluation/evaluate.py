"""Scores a model on a task: greedy and sampled exact match, token accuracy and loss, by group."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from slowwave.evaluation.flops import batch_flops
from slowwave.models.backbone import HybridLM, Run
from slowwave.models.config import ModelConfig
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.schedule import NO_LOSS, cut_training
from slowwave.sleep.unroll import answer_forks, unroll
from slowwave.tasks.base import Batch, Labelled, Task


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
    """Computed for all of its answers, contexts included; see `predict_flops`."""
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


@dataclasses.dataclass(frozen=True, slots=True)
class ScoredTokens:
    """Predictions for the M scored positions of a batch.

    logits: (M, vocab). targets, answers, groups: (M,) int64; answers are unique in the batch.
    """

    logits: Tensor
    targets: Tensor
    answers: Tensor
    groups: Tensor


def predict(
    model: HybridLM,
    batch: Batch,
    sleep: SleepConfig,
    *,
    checkpoint_activations: bool = False,
    run: Run | None = None,
) -> ScoredTokens:
    """Unrolls a batch and its forked questions; differentiable."""
    stream = batch.stream
    rollout = unroll(
        model,
        stream.inputs,
        stream.targets,
        sleep,
        mask=batch.mask,
        checkpoint_activations=checkpoint_activations,
        keep_hidden=False,
        run=run,
    )
    said = _scored(rollout.logits, stream)
    asked = batch.questions
    if asked is None:
        return said
    logits = answer_forks(model, asked.inputs, asked.targets, rollout.state, sleep=sleep, run=run)
    return _join(said, _scored(logits, asked))


def predict_flops(batch: Batch, model: ModelConfig, sleep: SleepConfig) -> int:
    """FLOPs of `predict`; see `evaluation.flops`."""
    forks = (0, 0) if batch.questions is None else tuple(batch.questions.inputs.shape[1:])
    scored = int((batch.stream.targets != NO_LOSS).sum())
    if batch.questions is not None:
        scored += int((batch.questions.targets != NO_LOSS).sum())
    return batch_flops(
        model,
        cut_training(batch.stream.targets, sleep),
        rows=len(batch.stream.inputs),
        num_scored=scored,
        forks=forks[0],
        fork_tokens=forks[1],
        sleep=sleep,
    )


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
                scored.append(_per_token(predict(model, batch, slept)))
                flops += predict_flops(batch, model.config, slept)
            tell(Scored(split, count, examples, examples))
            records.append(Record(split, count, flops, *_summarise(scored, labels)))
    return records


def _scored(logits: Tensor, labelled: Labelled) -> ScoredTokens:
    """logits (M, vocab) beside what was to be said; answers are numbered through the batch."""
    scored = labelled.targets != NO_LOSS
    rows = torch.arange(len(scored), device=scored.device)
    per_row = labelled.answers.max() + 1
    numbered = labelled.answers + per_row * rows.view(-1, *[1] * (scored.dim() - 1))
    return ScoredTokens(logits, labelled.targets[scored], numbered[scored], labelled.groups[scored])


def _join(said: ScoredTokens, asked: ScoredTokens) -> ScoredTokens:
    """What is predicted in the stream, and then on forks."""
    if not len(said.targets):
        return asked
    asked = dataclasses.replace(asked, answers=asked.answers + said.answers.max() + 1)
    columns = ("logits", "targets", "answers", "groups")
    return ScoredTokens(*(torch.cat([getattr(said, c), getattr(asked, c)]) for c in columns))


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
