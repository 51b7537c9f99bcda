"""Recorded costs are those of the formula of today, so that no table mixes two counts."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

import pytest

from slowwave.config import override
from slowwave.experiment import ExperimentConfig
from slowwave.lab.run_results import Run, find_runs
from slowwave.tasks import make_task
from slowwave.training.cost import run_flops

RESULTS = Path(__file__).parents[3] / "results"
RUNS = {str(run.folder.relative_to(RESULTS)): run for run in find_runs(RESULTS)}


@cache
def _count(config: ExperimentConfig) -> int:
    task = make_task(config.task)
    model = dataclasses.replace(config.model, vocab_size=task.vocab_size)
    batch = task.batch("train", range(config.train.batch_size))
    return run_flops(batch, model, config.sleep, config.train)


def _cost_before(config: ExperimentConfig) -> int:
    """What the run that it starts from cost, if there is one."""
    before = config.train.start_from
    return 0 if before is None else RUNS[before.removeprefix("results/")].summary["flops"]


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_a_recorded_run_cost_what_is_counted_today(run: Run) -> None:
    config = ExperimentConfig.from_dict(override({}, run.settings))
    seedless = dataclasses.replace(config.train, seed=0)
    whole = _count(dataclasses.replace(config, train=seedless))
    own = run.summary["flops"] - _cost_before(config)
    # Conversations differ in how many tokens are scored, and this counts the first batch alone.
    tolerance = 1e-3 if config.task.name == "conversation" else 0
    assert own * config.train.steps == pytest.approx(run.summary["step"] * whole, rel=tolerance)
