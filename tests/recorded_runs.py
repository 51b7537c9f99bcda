"""Run folders that hold what a test says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slowwave.config import override
from slowwave.experiment import ExperimentConfig
from slowwave.storage.json_files import write_json
from slowwave.tasks.depo import DepoConfig
from slowwave.tasks.rule110 import Rule110Config
from slowwave.tasks.text import TextConfig
from slowwave.training.run_folder import RunFolder

DEPO = ExperimentConfig(name="depo-mini", task=DepoConfig(hops=2))
RULE110 = ExperimentConfig(name="rule110", task=Rule110Config())
TEXT = ExperimentConfig(name="text", task=TextConfig(files=("a.txt",)))
STEPS = (10, 20, 30)


def exact_of(passes: int, seed: int) -> float:
    """The score that the fixture gives to the base; different for every run."""
    return 0.2 * passes + 0.01 * seed


def write_run(
    folder: Path,
    config: ExperimentConfig,
    *,
    exact: float,
    steps: tuple[int, ...] = STEPS,
    floors: dict[str, float] | None = None,
    tested: tuple[int, ...] = (1, 2, 4),
    bytes_per_token: float | None = None,
    **changes: Any,
) -> None:
    """A run folder whose scores are simple functions of `exact`; `changes` use __ for dots.

    Losses are 2 nats less exact match.
    """
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    settings = override(config.to_dict(), dotted)
    run = RunFolder(folder)
    write_json(folder / "config.json", settings)
    for step in steps:
        progress = {
            "step": step,
            "tokens": 100 * step,
            "flops": 7 * 10**9 * step,
            "seconds": 60.0 * step,
        }
        run.append_metrics({**progress, "loss": 1.0, "gradient_norm": 1.0})
        evaluation = make_record(settings["sleep"]["passes"], exact * step / STEPS[-1], {})
        run.append_metrics({**progress, "evaluation": evaluation})
    passes = settings["sleep"]["passes"]
    records = [
        make_record(
            count,
            exact - 0.05 * abs(count - passes),
            {"1": make_score(exact + 0.1), "2": make_score(exact - 0.1)},
            sampled=exact / 2,
            token_accuracy=0.9,
        )
        for count in tested
    ]
    summary = make_summary(passes, records, group_name="hop", floors=floors or {"chance": 0.11})
    run.write_summary({**summary, "bytes_per_token": bytes_per_token})


def make_score(exact: float, **others: float) -> dict[str, float]:
    """A score as it is recorded; its loss is 2 nats less exact match."""
    filled = {"sampled": 0.0, "token_accuracy": 0.0, "loss": 2 - exact, "answers": 8}
    return {"exact": exact, **filled, **others}


def make_record(
    passes: int, exact: float, groups: dict[str, dict[str, float]], **others: float
) -> dict[str, Any]:
    """What was scored with so many passes, as it is recorded."""
    overall = make_score(exact, **others)
    return {"split": "test", "passes": passes, "overall": overall, "groups": groups}


def make_summary(passes: int, test: list[dict[str, Any]], **others: Any) -> dict[str, Any]:
    """That of a run which was trained with so many passes."""
    return {
        "name": "tiny",
        "parameters": 1000,
        "step": STEPS[-1],
        "tokens": 3_000_000,
        "flops": 21 * 10**12,
        "seconds": 90.0,
        "trained_passes": passes,
        "group_name": "state",
        "floors": {},
        "test": test,
        **others,
    }
