"""What people see of a run: its scores beside their floors, its steps, examples of its task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from slowwave.console import PlainConsole
from slowwave.evaluation.measure import Measure
from slowwave.status_line import StatusLine, show_seconds
from slowwave.tasks import find_config, list_names, make_task
from slowwave.tasks.gsm_infinite.official import find_difference, read_official
from slowwave.tasks.gsm_infinite.task import Outcome, constant_floors

if TYPE_CHECKING:
    from slowwave.evaluation.evaluate import Scored
    from slowwave.training.trainer import StepReport


def score_table(summary: dict[str, Any]) -> Table:
    """One column a number of passes; a row for exact match, sampled, token accuracy, loss, what an
    answer cost (its share of the context included), and each group, with its floor if it has one.

    Of text also bits per byte, and of its groups instead of exact match.
    """
    records, floors = summary["test"], dict(summary["floors"])
    trained, measure = summary["trained_passes"], Measure(summary.get("bytes_per_token"))
    table = Table(title=f"{summary['name']}, trained with N = {trained}, unseen examples")
    table.add_column("")
    for record in records:
        marked = " (trained)" if record["passes"] == trained else ""
        table.add_column(f"N = {record['passes']}{marked}", justify="right")
    table.add_column("floor", justify="right")
    for name, key in (("exact", "exact"), ("sampled", "sampled"), ("token", "token_accuracy")):
        table.add_row(name, *(f"{record['overall'][key]:.1%}" for record in records))
    table.add_row("loss", *(f"{record['overall']['loss']:.3f}" for record in records))
    if not measure.is_share:
        shown = (measure.show(measure.of(record["overall"])) for record in records)
        table.add_row(measure.name, *shown)
    if all("flops" in record for record in records):
        costs = (record["flops"] / record["overall"]["answers"] for record in records)
        table.add_row("MFLOP an answer", *(f"{cost / 1e6:,.1f}" for cost in costs))
    for group in records[0]["groups"]:
        name = f"{summary['group_name']} {group}"
        shown = (measure.show(measure.of(record["groups"][group])) for record in records)
        floor = floors.pop(name, None)
        table.add_row(name, *shown, "" if floor is None else f"{floor:.1%}")
    table.caption = "floors: " + ", ".join(f"{name} {value:.1%}" for name, value in floors.items())
    if not measure.is_share:
        table.caption += f"; by {summary['group_name']}: {measure.name}"
    return table


def print_summary(summary: dict[str, Any]) -> None:
    """Prints the scores of a run, and what it cost if the summary says so."""
    console = PlainConsole()
    console.print(score_table(summary))
    if "flops" in summary:
        console.print(
            f"{summary['parameters']:,} parameters, {summary['step']:,} steps, "
            f"{summary['tokens'] / 1e6:.2f} M tokens, {summary['flops'] / 1e12:.1f} TFLOP, "
            f"{summary['seconds'] / 60:.1f} minutes"
        )


def print_tasks(*, as_json: bool) -> None:
    """Lists the tasks with the first line of their documentation and their fields."""
    described = {name: _describe_task(name) for name in list_names()}
    if as_json:
        print(json.dumps(described))
        return
    table = Table()
    for column in ("task", "about", "fields and defaults"):
        table.add_column(column)
    for name, entry in described.items():
        fields = ", ".join(f"{k}={v}" for k, v in entry["defaults"].items() if k != "name")
        table.add_row(name, entry["about"], fields)
    PlainConsole().print(table)


def _describe_task(name: str) -> dict[str, Any]:
    """What a task is about, and the settings that it has by default; of one of another package that
    cannot be had, why."""
    try:
        config = find_config(name)
        defaults = config.from_dict({"name": name}).to_dict()
    except ValueError as error:
        return {"about": str(error), "defaults": {}}
    return {"about": " ".join((config.__doc__ or "").split()), "defaults": defaults}


def print_task_examples(
    name: str, settings: dict[str, Any], split: str, count: int, as_json: bool
) -> None:
    """Prints examples 0..count-1 of a task; raises ValueError for an unknown name or field."""
    task = make_task(find_config(name).from_dict({"name": name, **settings}))
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


class RunView:
    """Shows steps and scorings as they are told of them."""

    def __init__(self, status: StatusLine) -> None:
        self._status = status

    def step(self, report: StepReport) -> None:
        """A step was taken; the last one stays on the screen."""
        line = describe_step(report)
        if report.progress.step == report.steps:
            self._status.say(line)
        else:
            self._status.show(line)

    def scored(self, scored: Scored) -> None:
        """A scoring goes on."""
        work = f"scoring the {scored.split} split, N = {scored.passes}"
        self._status.count(work, scored.done, scored.examples, "examples")


def describe_step(report: StepReport) -> str:
    """Step, tokens, loss, exact match, speed and the time left."""
    exact = "-" if report.exact is None else f"{report.exact:.1%}"
    return (
        f"step {report.progress.step}/{report.steps}  tokens {report.progress.tokens / 1e6:.2f}M  "
        f"loss {report.loss:.3f}  exact {exact:>5}  "
        f"{report.tokens_per_second / 1e3:.1f}k tokens/s  left {show_seconds(report.seconds_left)}"
    )
