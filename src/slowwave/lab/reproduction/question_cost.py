"""What an answer costs, by how many questions are asked of one context: a figure and a table.

The context is read once, and slept on; every question is then read on a copy of what that left,
with all of its wake passes. So sleep pays once a context, and looping at wake with every question.
Costs are counted from the configs of planned runs, so that nothing need be trained; the scores of
those that are recorded stand beside.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slowwave.lab.canvas import COLOURS, add_legend, line_style, new_figure, save_figure, set_title
from slowwave.lab.reproduction.runs import SEED, PlannedRun
from slowwave.lab.run_results import Spread, find_runs, markdown_rows, show_spread
from slowwave.models.config import ModelConfig
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.objective import Plan
from slowwave.sleep.schedule import NO_LOSS, cut_stream
from slowwave.storage.files import write_atomically
from slowwave.tasks import make_task
from slowwave.tasks.base import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUESTIONS = tuple(2**power for power in range(11))
TABLED = QUESTIONS[::2]
GFLOP = 1e9
CROSSING_STYLE: dict[str, Any] = {
    "markersize": 11,
    "markerfacecolor": "none",
    "markeredgecolor": "black",
}


@dataclasses.dataclass(frozen=True, slots=True)
class QuestionCost:
    """FLOPs of inference, as `slowwave.models.flops` counts them."""

    context: int
    """Reading a context and sleeping on it, once."""
    question: int
    """Reading a question and its answer."""

    def each(self, questions: int) -> float:
        """FLOPs an answered question, if as many are asked of one context."""
        return self.context / questions + self.question

    def cheaper_from(self, other: QuestionCost) -> int | None:
        """The fewest questions of one context from which on this costs less than `other`.

        None if it does not, however many are asked.
        """
        saved = other.question - self.question
        if saved > 0:
            return max(1, (self.context - other.context) // saved + 1)
        return 1 if saved == 0 and self.context < other.context else None


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """One way to answer, over its seeds. exact: recorded exact match, or "not run"."""

    name: str
    passes: int
    cost: QuestionCost
    exact: str


def question_cost(task: Task, model: ModelConfig, sleep: SleepConfig) -> QuestionCost:
    """What a model costs that answers questions of a task, in a batch of one.

    Counted as they are scored: question and answer are read in one call. What a task asks in a row
    is one question. The vocabulary is the task's, whatever the model's config says. Raises
    ValueError if the task has no context.
    """
    if task.context_tokens == 0:
        raise ValueError(
            f"task {task.config.name} has no context that questions could share; choose another"
        )
    batch = task.batch("test", [0])
    asked = batch.stream.targets if batch.questions is None else batch.questions.targets[:, :1]
    num_scored = int((asked != NO_LOSS).sum())
    sizes = dataclasses.replace(model, vocab_size=task.vocab_size)
    plan = Plan(sleep, cut_stream(task.context_tokens, sleep, keep_hidden=False))
    context = plan.flops(sizes)
    asked_once = dataclasses.replace(
        plan, num_scored=num_scored, forks=1, fork_tokens=task.prediction_tokens
    )
    return QuestionCost(context, asked_once.flops(sizes) - context)


def write_question_costs(runs: Sequence[PlannedRun]) -> list[Path]:
    """Writes question-cost.png and question-cost.md for the runs of a figure, which share a task.

    The first run is the one that all others are compared with.
    """
    task = make_task(runs[0].config.task)
    title = (
        f"{runs[0].recipe}: contexts of {task.context_tokens:,} tokens, questions and answers of "
        f"{task.prediction_tokens}"
    )
    ways = find_ways(runs)
    table = question_cost_table_file(runs[0].folder.parent)
    write_atomically(table, question_cost_table(ways, title).encode())
    drawn = draw_question_costs(ways, title)
    return [save_figure(drawn, table.with_suffix(".png")), table]


def question_cost_table_file(folder: Path) -> Path:
    """Where the table of a recipe's results is."""
    return folder / "question-cost.md"


def find_ways(runs: Sequence[PlannedRun]) -> list[Way]:
    """Planned runs that differ in more than their seed, named as their folders are."""
    seeds: dict[str, list[PlannedRun]] = {}
    for run in runs:
        shared = json.dumps({**run.settings, SEED: None}, sort_keys=True)
        seeds.setdefault(shared, []).append(run)
    return [_way(members) for members in seeds.values()]


def draw_question_costs(ways: Sequence[Way], title: str) -> Figure:
    """GFLOP an answered question against questions of one context; ways of equal cost share a line.

    N = 1 and the first way have the colours of their N in all figures. Circles: from there on the
    first way costs less than that line's.
    """
    lines: dict[QuestionCost, list[Way]] = {}
    for way in ways:
        lines.setdefault(way.cost, []).append(way)
    figure = new_figure(9, 6)
    axes: Axes = figure.subplots()
    taken: set[int] = set()
    for cost, members in lines.items():
        places = itertools.chain([members[0].passes], itertools.count(1))
        place = next(place for place in places if place not in taken)
        taken.add(place)
        style = line_style(place)
        if place > len(COLOURS):
            style["linestyle"] = "--"
        label = ", ".join(f"{way.name} ({way.exact})" for way in members)
        axes.plot(QUESTIONS, [cost.each(n) / GFLOP for n in QUESTIONS], **style, label=label)
        crossing = ways[0].cost.cheaper_from(cost)
        if crossing is not None and 1 < crossing <= QUESTIONS[-1]:
            axes.plot(crossing, cost.each(crossing) / GFLOP, "o", **CROSSING_STYLE)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(QUESTIONS, [f"{n:,}" for n in QUESTIONS])
    axes.set_xlabel("questions asked of one context")
    axes.set_ylabel("GFLOP an answered question")
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    set_title(figure, "What an answer costs")
    axes.set_title(title, fontsize=9)
    caption = f"in brackets: exact match; circles: from here on {ways[0].name} costs less"
    add_legend(figure, axes, caption, columns=2)
    return figure


def question_cost_table(ways: Sequence[Way], title: str) -> str:
    """One row a way, for a README to quote."""
    first = ways[0]
    counts = [f"{n:,} asked" for n in TABLED]
    columns = ["way", "a context", "a question", *counts, f"{first.name} costs less", "exact"]
    rows = [columns, ["---", *["---:"] * (len(columns) - 1)]]
    for way in ways:
        means = [_gflop(way.cost.each(n)) for n in TABLED]
        sums = [_gflop(way.cost.context), _gflop(way.cost.question)]
        crossing = "" if way is first else _crossing(first.cost, way.cost)
        rows.append([way.name, *sums, *means, crossing, way.exact])
    return (
        f"{title}.\n"
        "GFLOP of inference, counted from the configs alone. A context is read, and slept on,\n"
        "once; every question is then read on a copy of what that left. N asked: GFLOP an\n"
        f"answered question if N share a context. {first.name} costs less: from how many\n"
        "questions of one context on. Exact: recorded exact match, mean over seeds, lowest and\n"
        f"highest in brackets.\n\n{markdown_rows(rows)}\n"
    )


def _way(seeds: Sequence[PlannedRun]) -> Way:
    run = seeds[0]
    config = run.config
    exact = [found.exact for seed in seeds for found in find_runs(seed.folder)]
    return Way(
        run.name.removesuffix(f"-seed{config.train.seed}"),
        config.sleep.passes,
        question_cost(make_task(config.task), config.model, config.sleep),
        show_spread(Spread.of(exact)) if exact else "not run",
    )


def _crossing(first: QuestionCost, other: QuestionCost) -> str:
    if first == other:
        return "the same"
    found = first.cheaper_from(other)
    return "never" if found is None else "always" if found == 1 else f"from {found:,}"


def _gflop(flops: float) -> str:
    return f"{flops / GFLOP:,.3g}" if flops < 1000 * GFLOP else f"{flops / GFLOP:,.0f}"
