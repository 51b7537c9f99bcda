"""Tables for people: a run's scores beside its floors, and examples of a task."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from slowwave.tasks.config import (
    ConversationConfig,
    DepoConfig,
    GsmInfiniteConfig,
    RecallConfig,
    Rule110Config,
    TextConfig,
)
from slowwave.tasks.gsm_infinite_floors import Outcome, constant_floors
from slowwave.tasks.gsm_infinite_official import find_difference, read_official
from slowwave.tasks.registry import make_task

TASKS = {
    "rule110": Rule110Config,
    "depo": DepoConfig,
    "gsm_infinite": GsmInfiniteConfig,
    "recall": RecallConfig,
    "conversation": ConversationConfig,
    "text": TextConfig,
}


def score_table(summary: dict[str, Any]) -> Table:
    """One row a number of passes: exact match, sampled, token accuracy, loss, and each group.

    Of text also bits per byte, and of its groups the loss instead of exact match.
    """
    groups = list(summary["test"][0]["groups"])
    trained = summary["trained_passes"]
    bytes_per_token = summary.get("bytes_per_token")
    table = Table(title=f"{summary['name']}, trained with N = {trained}, unseen examples")
    columns = ["N", "exact", "sampled", "token", "loss"]
    columns += [] if bytes_per_token is None else ["bits per byte"]
    for column in (*columns, *(f"{summary['group_name']} {group}" for group in groups)):
        table.add_column(column, justify="right")
    for record in summary["test"]:
        overall, scores = record["overall"], [record["groups"][group] for group in groups]
        marked = f"{record['passes']} (trained)" if record["passes"] == trained else None
        cells = [f"{overall[key]:.1%}" for key in ("exact", "sampled", "token_accuracy")]
        cells.append(f"{overall['loss']:.3f}")
        if bytes_per_token is None:
            cells += [f"{score['exact']:.1%}" for score in scores]
        else:
            cells.append(f"{overall['loss'] / math.log(2) / bytes_per_token:.3f}")
            cells += [f"{score['loss']:.3f}" for score in scores]
        table.add_row(marked or str(record["passes"]), *cells)
    table.caption = "floors: " + ", ".join(
        f"{name} {value:.1%}" for name, value in summary["floors"].items()
    )
    if bytes_per_token is not None:
        table.caption += "; by token of the window: loss in nats"
    return table


def print_summary(summary: dict[str, Any]) -> None:
    """Prints the scores of a run, and what it cost if the summary says so."""
    console = Console()
    console.print(score_table(summary))
    if "flops" in summary:
        console.print(
            f"{summary['parameters']:,} parameters, {summary['step']:,} steps, "
            f"{summary['tokens'] / 1e6:.2f} M tokens, {summary['flops'] / 1e12:.1f} TFLOP, "
            f"{summary['seconds'] / 60:.1f} minutes"
        )


def print_tasks(*, as_json: bool) -> None:
    """Lists the tasks with the first line of their documentation and their fields."""
    described = {
        name: {
            "about": " ".join((config.__doc__ or "").split()),
            "defaults": config().to_dict(),
        }
        for name, config in TASKS.items()
    }
    if as_json:
        print(json.dumps(described))
        return
    table = Table()
    for column in ("task", "about", "fields and defaults"):
        table.add_column(column)
    for name, entry in described.items():
        fields = ", ".join(f"{k}={v}" for k, v in entry["defaults"].items() if k != "name")
        table.add_row(name, entry["about"], fields)
    Console().print(table)


def print_task_examples(
    name: str, settings: dict[str, Any], split: str, count: int, as_json: bool
) -> None:
    """Prints examples 0..count-1 of a task; raises ValueError for an unknown name or field."""
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; use one of {', '.join(TASKS)}")
    task = make_task(TASKS[name].from_dict({"name": name, **settings}))
    examples = [task.example(split, index) for index in range(count)]
    if as_json:
        rows = [
            {
                "context": example.context,
                "questions": example.questions,
                "answers": example.answers,
                "tokens": example.tokens,
                "targets": example.targets,
            }
            for example in examples
        ]
        print(json.dumps({"floors": task.floors(), "examples": rows}))
        return
    for example in examples:
        print(task.render(example))
    floors = ", ".join(f"{key} {value:.1%}" for key, value in task.floors().items())
    print(f"floors: {floors}")


def print_official_rows(path: Path, *, as_json: bool) -> None:
    """Solves problems of the public GSM-Infinite and says how many come out as stated, which do
    not, and what constant answers score; raises ValueError naming the first malformed line."""
    rows = read_official(path)
    differing = [text for text in map(find_difference, rows) if text is not None]
    floors = constant_floors(
        Outcome(row.operations, row.problem.is_reverse, row.answer) for row in rows
    )
    if as_json:
        print(json.dumps({"rows": len(rows), "differing": differing, "floors": floors}))
        return
    print(f"{len(rows) - len(differing)} of {len(rows)} rows come out as stated")
    for text in differing:
        print(f"  {text}")
    print("floors: " + ", ".join(f"{key} {value:.1%}" for key, value in floors.items()))
