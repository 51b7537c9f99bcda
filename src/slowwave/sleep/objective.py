"""What training minimises and scores count: predictions of a batch, and what making them costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slowwave.models.backbone import HybridLM, Run
from slowwave.models.config import ModelConfig
from slowwave.models.flops import Pass, head_flops, learned_flops, pass_flops
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.schedule import (
    EMPTY,
    NO_LOSS,
    Fill,
    Segment,
    cut_training,
    follow_fill,
    list_passes,
)
from slowwave.sleep.unroll import answer_forks, unroll

NONE = -1

Integers = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, slots=True)
class Labelled:
    """Tokens and what to predict at each of them; all int64, (B, T), or (B, F, Q) when forked.

    inputs: token ids. targets: the token to predict at this position (already shifted), -100 =
    no loss. answers: the answer of the example that the target belongs to, -1 = none; an answer
    is right when all of its targets are. groups: the slice the answer is reported under (see
    `Task.group_name`), -1 = none.
    """

    inputs: Tensor
    targets: Tensor
    answers: Tensor
    groups: Tensor

    @classmethod
    def from_arrays(
        cls, inputs: Integers, targets: Integers, answers: Integers, groups: Integers
    ) -> Labelled:
        """Arrays (B, T) or (B, F, Q); where answers are -1, any target and group is dropped."""
        is_scored = answers != NONE
        arrays = (
            inputs,
            np.where(is_scored, targets, NO_LOSS),
            answers,
            np.where(is_scored, groups, NONE),
        )
        return cls(*(torch.from_numpy(np.array(array, order="C")) for array in arrays))

    def to(self, device: torch.device) -> Labelled:
        """The same on `device`."""
        moved = (self.inputs, self.targets, self.answers, self.groups)
        return Labelled(*(tensor.to(device) for tensor in moved))


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """stream: (B, T). questions: (B, F, Q), each asked on its own fork of the state after the
    stream; None if all questions are part of the stream. mask: (B, T) bool, False is padding of the
    stream, which no pass sees; None if nothing is hidden."""

    stream: Labelled
    questions: Labelled | None
    mask: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same on `device`."""
        questions = None if self.questions is None else self.questions.to(device)
        mask = None if self.mask is None else self.mask.to(device)
        return Batch(self.stream.to(device), questions, mask)


@dataclasses.dataclass(frozen=True, slots=True)
class ScoredTokens:
    """Predictions for the M scored positions of a batch.

    logits: (M, vocab). targets, answers, groups: (M,) int64; answers are unique in the batch.
    """

    logits: Tensor
    targets: Tensor
    answers: Tensor
    groups: Tensor


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a batch is read, made once: where it is cut, and how often each window is read.

    rows: B. num_scored: positions that get logits, those of questions included. forks, fork_tokens:
    F and Q of the questions, 0 if there are none. fill: tokens that attention holds before.
    """

    sleep: SleepConfig
    segments: Sequence[Segment]
    rows: int = 1
    num_scored: int = 0
    forks: int = 0
    fork_tokens: int = 0
    fill: Fill = EMPTY

    def flops(self, sizes: ModelConfig) -> int:
        """FLOPs of the forward pass, `predict`; see `slowwave.models.flops`."""
        stream = sum(pass_flops(sizes, each) for each in self._list_passes(sizes))
        *_, held = follow_fill(self.segments, self.sleep, self.fill)
        question = Pass(self.fork_tokens, held.window + held.carried)
        asked = self.sleep.wake_passes * pass_flops(sizes, question, keep_state=False)
        return self.rows * (stream + self.forks * asked) + head_flops(sizes, self.num_scored)

    def training_flops(self, sizes: ModelConfig) -> int:
        """FLOPs of a training step: forward, and twice what gradients come back through.

        They do not through a window's last feed-forward layer and last reads where it keeps its
        keys and values and no loss reads it, nor through hidden states that no pass reads again.
        Activations that are computed again earn no credit. Frozen weights, whose gradients are not
        computed, are counted like others.
        """
        passes = self._list_passes(sizes)
        unread = sum(pass_flops(sizes, each) - learned_flops(sizes, each) for each in passes)
        return 3 * self.flops(sizes) - 2 * self.rows * unread

    def _list_passes(self, sizes: ModelConfig) -> list[Pass]:
        return list(list_passes(sizes, self.segments, self.sleep, self.fill))


def plan_batch(batch: Batch, sleep: SleepConfig) -> Plan:
    """The plan of a batch; raises ValueError if its rows cannot share one (`cut_training`)."""
    asked = batch.questions
    scored = int((batch.stream.targets != NO_LOSS).sum())
    if asked is not None:
        scored += int((asked.targets != NO_LOSS).sum())
    forks, fork_tokens = (0, 0) if asked is None else asked.inputs.shape[1:]
    segments = tuple(cut_training(batch.stream.targets, sleep))
    return Plan(sleep, segments, len(batch.stream.inputs), scored, forks, fork_tokens)


def predict(
    model: HybridLM,
    batch: Batch,
    plan: Plan,
    *,
    checkpoint_activations: bool = False,
    run: Run | None = None,
) -> ScoredTokens:
    """Unrolls a batch and its forked questions as planned; differentiable.

    checkpoint_activations, run: as for `unroll`.
    """
    stream, asked = batch.stream, batch.questions
    rollout = unroll(
        model,
        stream.inputs,
        stream.targets,
        plan.sleep,
        mask=batch.mask,
        checkpoint_activations=checkpoint_activations,
        keep_hidden=False,
        segments=plan.segments,
        run=run,
    )
    said = _scored(rollout.logits, stream)
    if asked is None:
        return said
    logits = answer_forks(
        model, asked.inputs, asked.targets, rollout.state, sleep=plan.sleep, run=run
    )
    return _join(said, _scored(logits, asked))


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
