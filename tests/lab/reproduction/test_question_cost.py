"""What an answer costs, against what torch counts while questions are answered."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flop_counter import Counter
from slowwave.lab.reproduction.question_cost import QuestionCost, question_cost
from slowwave.models.backbone import HybridLM
from slowwave.models.config import LayerType, ModelConfig
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.schedule import NO_LOSS
from slowwave.sleep.unroll import answer_forks, unroll
from slowwave.tasks import TaskConfig, make_task
from slowwave.tasks.base import Task
from slowwave.tasks.depo import DepoConfig
from slowwave.tasks.rule110 import Rule110Config
from slowwave.tasks.text import TextConfig

HYBRID: tuple[LayerType, ...] = ("attn", "gdn")
SIZES = ModelConfig(width=24, layers=HYBRID, mlp_hidden=40, key_dim=8, value_dim=8)
WAYS: dict[str, tuple[tuple[LayerType, ...], SleepConfig]] = {
    "one pass": (HYBRID, SleepConfig(window=6)),
    "sleep": (HYBRID, SleepConfig(window=6, passes=4)),
    "wake": (HYBRID, SleepConfig(window=6, wake_passes=4)),
    "deep": (HYBRID * 4, SleepConfig(window=6)),
    "full attention": (("attn", "attn"), SleepConfig(eviction="none")),
    "sliding": (("attn", "attn"), SleepConfig(window=6, eviction="sliding", sinks=2)),
}
TASKS: dict[str, TaskConfig] = {
    "forked": DepoConfig(nodes=6, hops=3, questions=5),
    "in the stream": Rule110Config(width=6, num_states=2),
}
COSTS = st.builds(QuestionCost, st.integers(0, 50), st.integers(0, 9))


def count_with_torch(
    counter: Counter, task: Task, model: HybridLM, sleep: SleepConfig, questions: int
) -> int:
    """What is computed while `questions` are asked of one context, each by itself."""
    batch = task.batch("test", [0])
    context = batch.stream.inputs[:, : task.context_tokens]
    if batch.questions is None:
        asked = batch.stream.inputs[:, None, task.context_tokens :]
        wanted = batch.stream.targets[:, None, task.context_tokens :]
    else:
        asked, wanted = batch.questions.inputs[:, :1], batch.questions.targets[:, :1]
    with counter:
        unscored = torch.full_like(context, NO_LOSS)
        state = unroll(model, context, unscored, sleep, keep_hidden=False).state
        for _ in range(questions):
            answer_forks(model, asked, wanted, state, sleep=sleep)
    return counter.total


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("questions", [1, 3])
def test_answers_cost_what_torch_counts(
    monkeypatch: pytest.MonkeyPatch, way: str, name: str, questions: int
) -> None:
    (layers, sleep), task = WAYS[way], make_task(TASKS[name])
    sizes = dataclasses.replace(SIZES, layers=layers)
    model = HybridLM(dataclasses.replace(sizes, vocab_size=task.vocab_size))
    total = count_with_torch(Counter(monkeypatch), task, model, sleep, questions)
    cost = question_cost(task, sizes, sleep)
    assert cost.context + questions * cost.question == total
    assert cost.each(questions) == total / questions


def test_sleep_pays_once_a_context_and_looping_at_wake_for_every_question() -> None:
    task = make_task(TASKS["in the stream"])
    cost = {way: question_cost(task, SIZES, sleep) for way, (_, sleep) in list(WAYS.items())[:3]}
    assert cost["sleep"].question == cost["one pass"].question
    assert cost["wake"].context == cost["one pass"].context < cost["sleep"].context
    asked_once = cost["one pass"].question
    assert 3 * asked_once < cost["wake"].question < 4.1 * asked_once


@given(COSTS, COSTS)
def test_the_crossing_is_where_the_sums_cross(this: QuestionCost, other: QuestionCost) -> None:
    def is_cheaper(questions: int) -> bool:
        mean, others = (Fraction(c.context, questions) + c.question for c in (this, other))
        return mean < others

    # With contexts of at most 50, all that can change has changed after 50 questions.
    expected = next((n for n in range(1, 60) if all(map(is_cheaper, range(n, 120)))), None)
    assert this.cheaper_from(other) == expected


def test_a_task_without_context_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text(" ".join(map(str, range(4000))))
    task = make_task(TextConfig(files=(str(tmp_path / "text"),), context=40, piece=64))
    with pytest.raises(ValueError, match="task text has no context that questions could share"):
        question_cost(task, SIZES, SleepConfig())
