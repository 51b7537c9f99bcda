"""Watch trained models read a graph, sleep, drop the cache, and answer from their fast weights."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from slowwave.console import PlainConsole
from slowwave.evaluation.evaluate import Record, evaluate
from slowwave.experiment import ExperimentConfig, load_run
from slowwave.lab.canvas import save_figure
from slowwave.lab.memory_plots import draw_demo
from slowwave.lab.run_results import Spread
from slowwave.lab.stream_trace import Event, ReadEvent, SleepEvent, StreamTrace, trace_stream
from slowwave.models.backbone import HybridLM
from slowwave.sleep.objective import Labelled
from slowwave.sleep.stream import read_stream
from slowwave.storage.json_files import write_json
from slowwave.tasks.base import Example, Task
from slowwave.tasks.depo import DepoConfig
from slowwave.tasks.draws import MAX_INDEX
from slowwave.wording import say_how_to_install

PASSES = (1, 2, 3, 4)
SPLIT = "test"
NUM_QUESTIONS = 12
BAR_WIDTH = 20
SECONDS_PER_LINE = 0.15
EDGE_TOKENS = 2
SHOWN = ("compact", "forked")
"""The grammar and the layout of depo that the demo can show."""
# The block of a bar, and the marks of a right and a wrong answer, where the terminal has them.
SYMBOLS = ("\u2588", "\u2713", "\u2717")
PLAIN_SYMBOLS = ("#", "ok", "no")

Loaded = tuple[ExperimentConfig, HybridLM, Task]


def run_demo(checkpoints: Path, *, out: Path, seed: int | None, graphs: int, as_json: bool) -> None:
    """Shows one unseen graph in detail and `graphs` of them as a table.

    Writes stream.json, demo.json and demo.png into `out`. as_json prints demo.json alone. Raises
    ValueError if a checkpoint is missing or is not of the demo's task.
    """
    # Few enough digits to type again.
    index = int.from_bytes(os.urandom(4)) if seed is None else seed
    if not 0 <= index <= MAX_INDEX:
        raise ValueError(f"--seed is {seed}; use 0 to 2**62")
    if graphs < 1:
        raise ValueError(f"--graphs is {graphs}; use 1 or more")
    began = time.perf_counter()
    # Products this small gain nothing from a second thread, and lose much if it has to wait.
    torch.set_num_threads(1)
    runs = _load_all(checkpoints)
    teller = Teller(PlainConsole(markup=True, quiet=as_json))
    _, _, task = runs[PASSES[0]]
    example = task.example(SPLIT, index)
    teller.introduce(example)

    trace = _watch(runs[PASSES[-1]], example, teller)
    answers = _ask(runs, index, trace)
    teller.show_answers(answers, _follow(example.tokens))

    scores = {
        n: evaluate(model, task, sleep=config.sleep, split=SPLIT, examples=graphs)[0]
        for n, (config, model, task) in runs.items()
    }
    teller.show_scores(scores, task, graphs)

    files = {name: str(out / name) for name in ("demo.json", "stream.json")}
    stream = trace.to_dict()
    write_json(out / "stream.json", stream)
    if importlib.util.find_spec("matplotlib") is None:
        how = say_how_to_install("plot")
        print(f"slowwave: no figure, matplotlib is missing; {how}", file=sys.stderr)
    else:
        figure = draw_demo(
            stream,
            {
                n: {group: Spread.of([score.exact]) for group, score in record.groups.items()}
                for n, record in scores.items()
            },
            task.floors(),
            group_name=task.group_name,
            caption=f"{graphs} unseen graphs",
        )
        files["demo.png"] = str(save_figure(figure, out / "demo.png"))
    result = {
        "split": SPLIT,
        "index": index,
        "context": example.context,
        "sleeps": [event for event in stream["events"] if event["kind"] == "sleep"],
        "questions": answers,
        "graphs": graphs,
        "group_name": task.group_name,
        "floors": task.floors(),
        "scores": [record.to_dict() for record in scores.values()],
        "seconds": time.perf_counter() - began,
        "files": files,
    }
    write_json(out / "demo.json", result)
    if as_json:
        print(json.dumps(result))
    teller.end(result)


class Teller:
    """Tells people what happens, at a pace that can be followed on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._seconds = SECONDS_PER_LINE if console.is_terminal and not console.quiet else 0.0
        symbols = PLAIN_SYMBOLS if console.options.ascii_only else SYMBOLS
        self._block, self._right, self._wrong = symbols

    def introduce(self, example: Example) -> None:
        """What is about to be read."""
        self._say(
            f"[bold]A puzzle that no model here has seen:[/] test graph {example.index} "
            f"(--seed {example.index} shows it again).\n"
            f"{len(example.context)} arrows, told in shuffled order, join all nodes into one ring. "
            "Afterwards we ask where one ends up some hops on from a node.\n"
        )
        self._say("[bold]Reading.[/] Every token stays in the attention window, and in its cache.")

    def show_read(self, arrow: str, event: ReadEvent, window: int) -> None:
        """One more arrow in the window."""
        fill = self._bar(event.window_fill / window, "#56b4e9")
        self._say(
            f"  {arrow:>7}  {fill} {event.window_fill:>3}/{window}   "
            f"cache {_kb(event.cache_nbytes):>7}   fast weights {_kb(event.fast_weights_nbytes)}"
        )

    def show_sleep(self, event: SleepEvent) -> None:
        """The passes, and what is left."""
        self._say(
            f"\n[bold]Sleep.[/] The window is full. The model reads it {event.passes - 1} more "
            "times (pass 1 was the reading itself), and every pass rewrites its fast weights:"
        )
        largest = max(write.change for writes in event.writes for write in writes)
        for n, writes in enumerate(event.writes, start=1):
            for write in writes:
                name = f"pass {n}" if write is writes[0] else ""
                bar = self._bar(write.change / largest, "#d55e00")
                self._say(f"  {name:<6}  layer {write.layer + 1}  {bar} change {write.change:.3g}")
        self._say(
            f"After {event.milliseconds:.0f} ms the cache is dropped: "
            f"{_kb(event.cache_nbytes_before)} -> {_kb(event.cache_nbytes_after)}. "
            "No token of the graph is left.\nThe fast weights are as large as before: "
            f"{_kb(event.fast_weights_nbytes_before)} -> {_kb(event.fast_weights_nbytes_after)}.\n"
        )

    def show_answers(self, answers: list[dict[str, Any]], ring: list[int]) -> None:
        """Each question with the answers of the models side by side."""
        names = list(answers[0]["answers"])
        self._say(
            "[bold]Questions.[/] Each is asked on its own copy of the slept memory, by a model "
            f"that read the graph once (N = {names[0]}) and by the one you just watched "
            f"(N = {names[-1]}).\nThe ring, for you to check: "
            f"{' -> '.join(map(str, [*ring, ring[0]]))}"
        )
        table = Table(box=None, padding=(0, 3, 0, 2))
        for column in ("question", "truth", *(f"N = {name}" for name in names)):
            table.add_column(column, justify="left" if column == "question" else "right")
        totals: list[str] = []
        for asked in answers:
            marked = (self._mark(answer, asked["truth"]) for answer in asked["answers"].values())
            table.add_row(asked["question"], asked["truth"], *marked)
        for name in names:
            right = sum(asked["answers"][name] == asked["truth"] for asked in answers)
            totals.append(f"{right} of {len(answers)}")
        table.add_row("right", "", *totals, style="bold")
        self._console.print(table)

    def show_scores(self, scores: dict[int, Record], task: Task, graphs: int) -> None:
        """Accuracy by group for every N, beside the floor."""
        questions = next(iter(scores.values())).overall.answers
        self._say(
            f"\n[bold]More graphs.[/] Right answers to {questions:,} questions about "
            f"{graphs} unseen graphs, by number of hops:"
        )
        table = Table(box=None, padding=(0, 2))
        for column in ("", *(f"{task.group_name} {g}" for g in task.group_labels), "all"):
            table.add_column(column, justify="right")
        for n, record in scores.items():
            groups = (record.groups.get(group) for group in task.group_labels)
            shares = ("-" if score is None else f"{score.exact:.0%}" for score in groups)
            table.add_row(f"N = {n}", *shares, f"{record.overall.exact:.0%}")
        for name, value in task.floors().items():
            table.add_row(f"floor: {name}", *[f"{value:.0%}"] * (len(task.group_labels) + 1))
        self._console.print(table)

    def end(self, result: dict[str, Any]) -> None:
        """What was written."""
        self._say(f"\nDone in {result['seconds']:.0f} s. Written:")
        for path in result["files"].values():
            # Paths are not to be broken at the terminal's width.
            self._console.print(f"  {path}", markup=False, soft_wrap=True)

    def _say(self, text: str) -> None:
        self._console.print(text)
        time.sleep(self._seconds)

    def _bar(self, share: float, colour: str) -> str:
        filled = round(BAR_WIDTH * share)
        rest = "." * (BAR_WIDTH - filled)
        return f"[{colour}]{self._block * filled}[/][dim]{rest}[/]"

    def _mark(self, answer: str, truth: str) -> str:
        good = answer == truth
        sign = f"[green]{self._right}[/]" if good else f"[red]{self._wrong}[/]"
        return f"{answer} {sign}"


def _load_all(checkpoints: Path) -> dict[int, Loaded]:
    """The model of every N, all of one task that the demo can show."""
    folders = {n: checkpoints / f"n{n}" for n in PASSES}
    missing = [folder.name for folder in folders.values() if not folder.is_dir()]
    if missing:
        raise ValueError(
            f"{checkpoints}: no trained model {', '.join(missing)}; run the demo from a checkout "
            "of slowwave, or name the folder of its models with --checkpoints"
        )
    runs = {n: load_run(folder) for n, folder in folders.items()}
    first = runs[PASSES[0]][0].task
    for n, (config, _, _) in runs.items():
        if config.sleep.passes != n:
            raise ValueError(
                f"{folders[n]}: sleep.passes is {config.sleep.passes}; put a model trained with "
                f"{n} there"
            )
        task = config.task
        can_show = isinstance(task, DepoConfig) and (task.grammar, task.layout) == SHOWN
        if task != first or not can_show:
            raise ValueError(
                f"{folders[n]}: task is {task}; use models of one depo task with the compact "
                "grammar and the forked layout"
            )
    return runs


def _watch(run: Loaded, example: Example, teller: Teller) -> StreamTrace:
    """Reads the graph token by token, telling what happens."""
    config, model, _ = run
    tokens = torch.tensor([example.tokens])
    # Kernels are chosen at their first call; the clock is to show the second.
    trace_stream(model, tokens, config.sleep)

    def tell(event: Event) -> None:
        if isinstance(event, SleepEvent):
            teller.show_sleep(event)
        elif event.tokens_seen % EDGE_TOKENS == 0:
            start, end = example.tokens[event.tokens_seen - EDGE_TOKENS : event.tokens_seen]
            teller.show_read(f"{start} -> {end}", event, config.sleep.window)

    return trace_stream(model, tokens, config.sleep, on_event=tell)


def _ask(runs: dict[int, Loaded], index: int, trace: StreamTrace) -> list[dict[str, Any]]:
    """A dozen questions, with the truth and the answers of the smallest and the largest N."""
    config, model, task = runs[PASSES[0]]
    batch = task.batch(SPLIT, [index])
    asked = batch.questions
    assert asked is not None
    with torch.no_grad():
        _, once = read_stream(model, batch.stream.inputs, model.initial_state(1), config.sleep)
        states = {PASSES[0]: once, PASSES[-1]: trace.state}
        said = {
            n: runs[n][1].logits(runs[n][1].ask(asked.inputs, state)).argmax(-1)[0, :, -1]
            for n, state in states.items()
        }
    words = task.example(SPLIT, index)
    return [
        {
            "question": words.questions[place],
            "truth": words.answers[place],
            "answers": {str(n): str(tokens[place].item()) for n, tokens in said.items()},
        }
        for place in _choose(asked, words.questions)
    ]


def _choose(asked: Labelled, questions: tuple[str, ...]) -> list[int]:
    """Places of a dozen different questions, as many of each group as there are, in its order."""
    groups: list[int] = asked.groups[0, :, -1].tolist()
    turns = dict.fromkeys(groups, 0)
    ranked: list[tuple[int, int, int]] = []
    for place, group in enumerate(groups):
        if questions[place] not in questions[:place]:
            ranked.append((turns[group], group, place))
            turns[group] += 1
    chosen = sorted(ranked)[:NUM_QUESTIONS]
    return [place for _, _, place in sorted(chosen, key=lambda entry: entry[1])]


def _follow(tokens: tuple[int, ...]) -> list[int]:
    """The nodes in the order of the ring, from the start of the first arrow."""
    follower = dict(zip(tokens[::EDGE_TOKENS], tokens[1::EDGE_TOKENS], strict=True))
    ring = [tokens[0]]
    while follower[ring[-1]] != ring[0]:
        ring.append(follower[ring[-1]])
    return ring


def _kb(count: int) -> str:
    return f"{count / 1e3:.1f} kB"
