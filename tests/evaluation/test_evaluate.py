"""Scores: what counts as right, how tokens make answers, and that batches change nothing."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from flop_counter import Counter
from numerics import assert_close
from slowwave.evaluation.evaluate import evaluate
from slowwave.models.backbone import HybridLM
from slowwave.models.config import ModelConfig
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.objective import Batch, Labelled, ScoredTokens, plan_batch, predict
from slowwave.sleep.unroll import unroll
from slowwave.tasks import make_task
from slowwave.tasks.base import Task
from slowwave.tasks.depo import DepoConfig
from slowwave.tasks.recall import RecallConfig
from slowwave.tasks.rule110 import Rule110Config

SIZES: dict[str, Any] = {
    "width": 16,
    "mlp_hidden": 32,
    "attn_heads": 2,
    "delta_heads": 2,
    "key_dim": 8,
}


def _model(task: Task) -> HybridLM:
    return HybridLM(ModelConfig(vocab_size=task.vocab_size, value_dim=8, **SIZES)).double()


def run_plan(model: HybridLM, batch: Batch, sleep: SleepConfig) -> ScoredTokens:
    return predict(model, batch, plan_batch(batch, sleep))


def _with_logits(model: HybridLM, logits: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the model say the same (vocab,) logits everywhere."""
    monkeypatch.setattr(model, "logits", lambda hidden: logits.expand(*hidden.shape[:-1], -1))


def test_constant_predictor_scores_its_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task(Rule110Config(width=8, num_states=2, steps=3))
    model = _model(task)
    _with_logits(model, torch.tensor([0.0, 9.0, -9.0], dtype=torch.float64), monkeypatch)
    (record,) = evaluate(model, task, sleep=SleepConfig(window=8), examples=4096)
    ones = record.overall.token_accuracy
    assert record.overall.exact == pytest.approx(task.floors()["constant"], abs=0.03)
    assert ones == pytest.approx(task.floors()["bit"], abs=0.02)
    assert record.overall.answers == 4096
    assert {group: score.answers for group, score in record.groups.items()} == {
        "0": 4096,
        "1": 4096,
    }


def test_sampled_score_and_loss_in_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task(Rule110Config(width=8, num_states=3, steps=2))
    model = _model(task)
    chances = torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64)
    _with_logits(model, chances.log(), monkeypatch)
    (record,) = evaluate(model, task, sleep=SleepConfig(window=8), examples=16)
    assert record.overall.sampled == pytest.approx(0.25**3)
    assert record.overall.loss == pytest.approx(-math.log(0.25))
    assert record.overall.exact == 0.0
    assert record.groups["1"].sampled == pytest.approx(0.25)


@pytest.mark.parametrize(
    "config",
    [
        DepoConfig(nodes=6, hops=3, questions=7),
        DepoConfig(nodes=6, hops=3, questions=7, layout="row"),
        DepoConfig(grammar="official", nodes=5, hops=3, questions=4),
        DepoConfig(grammar="official", nodes=5, hops=3, questions=4, layout="row"),
        Rule110Config(width=8, num_states=3),
    ],
)
def test_batch_size_changes_nothing(config: DepoConfig | Rule110Config) -> None:
    task = make_task(config)
    model = _model(task)
    sleep = SleepConfig(window=task.context_tokens, passes=2)
    (whole,) = evaluate(model, task, sleep=sleep, examples=12, batch_size=12)
    (pieces,) = evaluate(model, task, sleep=sleep, examples=12, batch_size=5)
    assert whole.overall.answers == pieces.overall.answers
    assert whole.overall.loss == pytest.approx(pieces.overall.loss, rel=1e-12)
    assert whole.overall.exact == pieces.overall.exact
    assert whole.groups.keys() == pieces.groups.keys()


def test_forked_questions_see_the_stream_and_not_each_other() -> None:
    task = make_task(DepoConfig(nodes=6, hops=3, questions=4))
    model = _model(task)
    sleep = SleepConfig(window=12, passes=2)
    batch = task.batch("test", [0, 1])
    assert batch.questions is not None
    together = run_plan(model, batch, sleep).logits.unflatten(0, (2, 4))
    for fork in range(4):
        asked = batch.questions
        alone = Labelled(
            *(
                tensor[:, fork : fork + 1]
                for tensor in (asked.inputs, asked.targets, asked.answers, asked.groups)
            )
        )
        logits = run_plan(model, Batch(batch.stream, alone), sleep).logits
        assert_close(logits, together[:, fork], 1e-12)


@pytest.mark.parametrize("layout", ["row", "forked"])
def test_masked_padding_leaves_no_trace(layout: Literal["row", "forked"]) -> None:
    """Windows full of it leave the memory as it was, to the bit, and its ids change nothing."""
    config = DepoConfig(
        grammar="official",
        nodes=10,
        min_nodes=2,
        hops=3,
        questions=2,
        layout=layout,
        padding="masked",
    )
    task = make_task(config)
    model, sleep = _model(task), SleepConfig(window=10, passes=3)
    batch = task.batch("train", range(40))
    mask = batch.mask
    assert mask is not None
    short = mask.sum(dim=1) == mask.sum(dim=1).min()  # of two nodes: windows 1 to 3 are padding
    assert not mask[short, :30].any()
    first = batch.stream.inputs[short, :30]
    slept = unroll(model, first, torch.full_like(first, -100), sleep, mask=mask[short, :30]).state
    assert slept.counters.num_sleeps == 3
    assert all(not weights.any() for weights in slept.fast_weights)

    predicted = run_plan(model, batch, sleep)
    predicted.logits.logsumexp(-1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    inputs = torch.where(mask, batch.stream.inputs, 7)
    other = dataclasses.replace(batch, stream=dataclasses.replace(batch.stream, inputs=inputs))
    assert torch.equal(run_plan(model, other, sleep).logits, predicted.logits)
    read = run_plan(model, dataclasses.replace(batch, mask=None), sleep).logits
    assert not torch.allclose(read, predicted.logits, rtol=1e-3)


def test_groups_go_by_their_labels_in_order() -> None:
    task = make_task(RecallConfig(window=12, windows=3, facts=3, updates=1, distances=(1, 2)))
    (record,) = evaluate(_model(task), task, sleep=SleepConfig(window=12), examples=8)
    assert tuple(record.groups) == ("1", "2", "1 updated", "2 updated", "never told")
    assert sum(score.answers for score in record.groups.values()) == record.overall.answers


def test_groups_without_answers_are_left_out() -> None:
    task = make_task(DepoConfig(nodes=6, hops=3, questions=1))
    (record,) = evaluate(_model(task), task, sleep=SleepConfig(window=12), examples=1)
    hops, _ = task.example("test", 0).questions[0].split(maxsplit=1)
    assert list(record.groups) == [hops]


def test_every_number_of_passes_gets_a_record() -> None:
    task = make_task(DepoConfig(nodes=6, hops=3, questions=4))
    records = evaluate(
        _model(task), task, sleep=SleepConfig(window=12, passes=2), examples=4, passes=(1, 3)
    )
    assert [record.passes for record in records] == [1, 3]
    assert records[0].overall.loss != records[1].overall.loss


def test_targets_in_stream_and_forks_are_scored_alike() -> None:
    task = make_task(DepoConfig(nodes=6, hops=3, questions=4))
    batch, model, sleep = task.batch("test", [0, 1]), _model(task), SleepConfig(window=12)
    stream = batch.stream
    numbers = torch.arange(12).expand_as(stream.inputs) // 4
    told = Labelled(stream.inputs, stream.inputs, numbers, numbers + 1)
    both = run_plan(model, Batch(told, batch.questions), sleep)
    parts = [run_plan(model, Batch(told, None), sleep), run_plan(model, batch, sleep)]
    assert_close(both.logits, torch.cat([part.logits for part in parts]), 1e-12)
    for column in ("targets", "groups"):
        assert torch.equal(getattr(both, column), torch.cat([getattr(p, column) for p in parts]))
    answers = [len(part.answers.unique()) for part in parts]
    assert answers == [2 * 3, 2 * 4]
    assert len(both.answers.unique()) == sum(answers)


@pytest.mark.parametrize(
    "config",
    [RecallConfig(window=16, windows=2, facts=3, updates=1, distances=(1, 2)), Rule110Config()],
)
def test_a_record_says_what_torch_counts(
    monkeypatch: pytest.MonkeyPatch, config: RecallConfig | Rule110Config
) -> None:
    """Forked questions and answers in the stream, in batches of which the last is smaller."""
    task = make_task(config)
    sleep = SleepConfig(window=16 if isinstance(config, RecallConfig) else config.width)
    with Counter(monkeypatch) as counter:
        (record,) = evaluate(_model(task), task, sleep=sleep, examples=5, batch_size=3, passes=(2,))
    assert record.flops == counter.total
