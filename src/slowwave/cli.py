"""The command line: parse, call, print; nothing else. Torch is imported only when work begins."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import tyro

from slowwave.experiment import PROBE_EXAMPLES, ExperimentConfig, complete, load_experiment
from slowwave.serving.config import ServeConfig

Options = TypeVar("Options")

USER_ERROR = 2
INTERRUPTED = 130
BROKEN_PIPE = 141

DESCRIPTION = """slowwave: language models that sleep.

A model fills its attention window, sleeps (N passes over the window, each writing into its fast
weights), drops the key-value cache and goes on.

commands:
  demo      watch trained models read a graph, sleep, forget the cache, and still answer
  train     train by a recipe, or continue a run:      slowwave train recipes/depo-mini.toml
  eval      score a run on unseen examples:            slowwave eval RUN --passes 1 2 4
  probe     find what each pass left in fast weights:  slowwave probe RUN
  reproduce make a figure of the paper, or list them:  slowwave reproduce fig3 --jobs 2
  plot      draw figures from what runs left on disk:  slowwave plot results/depo-mini
  tasks     list the tasks, or show examples:          slowwave tasks depo --show 3
  bench     measure speed and memory beside peers:     slowwave bench op
  serve     memories for OpenAI's clients:             slowwave serve MODEL --memory-dir DIR
  doctor    what this machine offers slowwave

slowwave COMMAND --help explains each of them."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point; a user's mistake is one line on stderr and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(DESCRIPTION)
        return
    name, *rest = arguments
    try:
        if name not in COMMANDS:
            raise ValueError(f"unknown command {name!r}; use one of {', '.join(COMMANDS)}")
        COMMANDS[name](rest)
    except BrokenPipeError:
        # Whoever read our output has enough; Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
    except (ValueError, OSError) as error:
        print(f"slowwave: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _parse(
    options: type[Options], arguments: list[str], *, prog: str, default: Options | None = None
) -> Options:
    """Lets tyro parse; its framed error messages become one-sentence ValueErrors."""
    framed = io.StringIO()
    try:
        with contextlib.redirect_stderr(framed):
            parsed = tyro.cli(options, args=arguments, prog=prog, default=default)
            return cast(Options, parsed)
    except SystemExit as exit_:
        if not exit_.code:
            raise
    # A title, the message, a rule, hints: framed by box characters or, without them, by rules.
    lines = [line.strip("\u2502 ") for line in framed.getvalue().strip().splitlines()[1:]]
    body = itertools.dropwhile(_is_rule, lines)
    message = itertools.takewhile(lambda line: not _is_rule(line), body)
    raise ValueError(f"{' '.join(message)}; see {prog} --help")


def _is_rule(line: str) -> bool:
    return line.startswith(("\u2500", "\u2570", "---"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train by a recipe; run again to continue an interrupted run.

    Every field of the recipe is a flag: --sleep.passes 4 --train.seed 1 --train.steps 2000.
    """

    experiment: Annotated[ExperimentConfig, tyro.conf.arg(name="")]
    out: Path | None = None
    """Run folder; runs/<recipe>/n<passes>-seed<seed> if not given."""
    json: bool = False
    """Print the summary as one JSON document on stdout."""


def train(arguments: list[str]) -> None:
    """slowwave train RECIPE [--sleep.passes 4 ...] [--out DIR] [--json]"""
    if not arguments or arguments[0].startswith("-"):
        print("usage: slowwave train RECIPE [options]; slowwave train RECIPE --help lists them")
        sys.exit(0 if {"-h", "--help"} & set(arguments) else USER_ERROR)
    recipe, *rest = arguments
    options = _parse(
        tyro.conf.AvoidSubcommands[TrainOptions],
        rest,
        prog=f"slowwave train {recipe}",
        default=TrainOptions(experiment=load_experiment(recipe)),
    )
    config = options.experiment
    name = f"n{config.sleep.passes}-seed{config.train.seed}"
    out = options.out or Path("runs") / config.name / name

    from slowwave.experiment import run_training
    from slowwave.training.allocator import keep_freed_memory
    from slowwave.training.progress_line import ProgressLine

    keep_freed_memory()
    summary = run_training(config, out, report=ProgressLine(config.train.log_every))
    if summary is None:
        print(f"\ninterrupted; the same command continues the run in {out}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    if options.json:
        print(json.dumps(summary))
    else:
        from slowwave.evaluation.tables import print_summary

        print(file=sys.stderr)
        print_summary(summary)
        print(f"run folder: {out}", file=sys.stderr)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Score a run (or a shipped checkpoint) on its test split."""

    run: tyro.conf.Positional[Path]
    """Folder of a run: config.json and checkpoint/."""
    passes: tuple[int, ...] = ()
    """Numbers of passes to sleep with; the trained one if not given."""
    examples: int = 1024
    """Test examples."""
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK.FIELD=VALUE ...")] = ()
    """Changes to the task, such as steps=10 or questions=9, to score beyond what was trained."""
    json: bool = False
    """Print the records as one JSON document on stdout."""


def evaluate_run(arguments: list[str]) -> None:
    """slowwave eval RUN [--passes 1 2 4] [--examples 1024] [--json]"""
    options = _parse(EvalOptions, arguments, prog="slowwave eval")
    if any(count < 1 for count in options.passes):
        raise ValueError(f"--passes is {options.passes}; use 1 or more for each")
    if options.examples < 1:
        raise ValueError(f"--examples is {options.examples}; use 1 or more")
    from slowwave.experiment import load_run, retask, score

    config, model, task = load_run(options.run)
    if options.set:
        config, task = retask(config, dict(_split_setting(text) for text in options.set))
    passes = options.passes or (config.sleep.passes,)
    records = score(model, task, config, passes=passes, examples=options.examples)
    result = {
        "name": config.name,
        "trained_passes": config.sleep.passes,
        "group_name": task.group_name,
        "bytes_per_token": task.bytes_per_token,
        "floors": task.floors(),
        "test": [record.to_dict() for record in records],
    }
    if options.json:
        print(json.dumps(result))
    else:
        from slowwave.evaluation.tables import print_summary

        print_summary(result)


def _split_setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set {text!r} has no '='; write it as field=value")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """Probe what the fast weights of a run of rule110 hold after each pass of a sleep.

    Linear probes look for the cells of slept states, 0 to t steps later. Writes probe.json,
    probe.md and probe.png into the run's folder.
    """

    run: tyro.conf.Positional[Path]
    """Folder of a run: config.json and checkpoint/."""
    examples: int = PROBE_EXAMPLES
    """Training examples of the probes; a quarter as many choose their penalties and score them."""
    json: bool = False
    """Print what was found as one JSON document on stdout."""


def probe(arguments: list[str]) -> None:
    """slowwave probe RUN [--examples 4096] [--json]"""
    options = _parse(ProbeOptions, arguments, prog="slowwave probe")
    from slowwave.evaluation.probe_report import draw_probes, probe_table
    from slowwave.experiment import probe_run

    found = probe_run(options.run, options.run, examples=options.examples)
    written = draw_probes(options.run, options.run)
    if options.json:
        print(json.dumps(found))
    else:
        print(probe_table(found))
        for path in written:
            print(path)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlotOptions:
    """Draw the figures of all runs below a folder, from their files alone."""

    folder: tyro.conf.Positional[Path]
    """Folder of runs, such as results/depo-mini, or a single run."""
    out: Path | None = None
    """Where figures and table.md go; the folder itself if not given."""


def plot(arguments: list[str]) -> None:
    """slowwave plot results/depo-mini [--out DIR]"""
    options = _parse(PlotOptions, arguments, prog="slowwave plot")
    from slowwave.evaluation.plots import draw_all

    for path in draw_all(options.folder, options.out or options.folder, complete):
        print(path)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReproduceOptions:
    """Train what a figure lacks, skip what is recorded, then rebuild its tables and figures.

    Call it in a checkout of slowwave: recipes/figures says what to run, results/ holds the runs.
    """

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")] = ""
    """Figure to make; all are listed if not given."""
    scale: str = "mini"
    """mini (two CPU cores) or paper (its size)."""
    seeds: int = 3
    """Seeds of every run; some are worth fewer."""
    jobs: int = 1
    """Runs to train at the same time."""
    dry_run: bool = False
    """Train nothing: list every run with its state, its cost and its command."""
    redraw: bool = False
    """Train nothing: rebuild tables and figures, of all figures without NAME."""


def reproduce(arguments: list[str]) -> None:
    """slowwave reproduce [NAME --scale mini --seeds 3 --jobs 2 --dry-run]"""
    options = _parse(ReproduceOptions, arguments, prog="slowwave reproduce")
    for field in ("seeds", "jobs"):
        if getattr(options, field) < 1:
            raise ValueError(f"--{field} is {getattr(options, field)}; use 1 or more")
    from slowwave.reproduction.reproduce import list_all, make, rebuild, show_runs

    if options.dry_run:
        show_runs(options.name, options.scale, seeds=options.seeds)
    elif options.redraw:
        rebuild(options.name, options.scale, seeds=options.seeds)
    elif options.name:
        make(options.name, options.scale, seeds=options.seeds, jobs=options.jobs)
    else:
        list_all(seeds=options.seeds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Stream an unseen graph through the shipped models: windows, sleeps, cache, answers."""

    checkpoints: Path = Path("checkpoints/depo-mini")
    """Folder with one trained model for each number of passes."""
    seed: int | None = None
    """Which unseen graph; a fresh one each time if not given."""
    graphs: int = 64
    """Unseen graphs behind the table of accuracy by hop."""
    out: Path = Path("runs/demo")
    """Folder that receives demo.png and the measurements, demo.json and stream.json."""
    json: bool = False
    """Print what was measured as one JSON document on stdout."""


def demo(arguments: list[str]) -> None:
    """slowwave demo [--seed 7] [--out runs/demo]"""
    options = _parse(DemoOptions, arguments, prog="slowwave demo")
    from slowwave.demo import run_demo

    run_demo(
        options.checkpoints,
        out=options.out,
        seed=options.seed,
        graphs=options.graphs,
        as_json=options.json,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TasksOptions:
    """List the tasks, or show examples of one."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")] = ""
    """Task to show; all are listed if not given."""
    show: int = 1
    """Number of examples."""
    split: str = "train"
    """train, validation or test."""
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FIELD=VALUE ...")] = ()
    """Changes to the task's default config, such as grammar=official or steps=4."""
    rows: Path | None = None
    """JSON lines of the public GSM-Infinite, to be read and solved instead of examples of ours."""
    json: bool = False
    """Print one JSON document on stdout."""


def tasks(arguments: list[str]) -> None:
    """slowwave tasks [NAME --show 3]"""
    options = _parse(TasksOptions, arguments, prog="slowwave tasks")
    from slowwave.evaluation.tables import print_official_rows, print_task_examples, print_tasks

    if options.rows is not None:
        if options.name != "gsm_infinite":
            raise ValueError(f"--rows needs gsm_infinite, not {options.name!r}; name that task")
        print_official_rows(options.rows, as_json=options.json)
        return
    if not options.name:
        print_tasks(as_json=options.json)
        return
    if options.show < 1:
        raise ValueError(f"--show is {options.show}; use 1 or more")
    settings = dict(_split_setting(text) for text in options.set)
    print_task_examples(options.name, settings, options.split, options.show, options.json)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Measure speed and memory, each beside a peer and beside what this machine can do."""

    what: tyro.conf.Positional[str]
    """op (the delta rule), read (long streams), wake (a token after 1 k to 1 M tokens), sleep,
    train, store (keeping a session), kills (a thousand, some minutes), serve (a hundred sessions at
    once, half an hour), large (1.4 B weights, needs a GPU), or all."""
    shape: Annotated[tuple[int, ...], tyro.conf.arg(metavar="B T H K V")] = ()
    """Sizes of the only delta rule to measure: rows, tokens, heads, keys, values."""
    workers: tuple[str, ...] = ()
    """Backends and peers of the delta rule, such as native "transformers chunk"; all if none."""
    seconds: float | None = None
    """Of the load in bench serve; 600 if not given."""
    out: Path | None = None
    """Folder for the measurements (WHAT.json) and bench.png; nothing is written if not given."""
    json: bool = False
    """Print one JSON document on stdout."""


def bench(arguments: list[str]) -> None:
    """slowwave bench {op,read,wake,sleep,train,store,kills,serve,large,all} [--out DIR]"""
    options = _parse(BenchOptions, arguments, prog="slowwave bench")
    from slowwave.bench.op import OpOptions
    from slowwave.bench.run import run_benchmarks

    chosen = OpOptions(shape=options.shape, workers=options.workers)
    run_benchmarks(
        options.what, chosen, out=options.out, as_json=options.json, seconds=options.seconds
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Say what this machine offers slowwave, and what is missing."""

    json: bool = False
    """Print one JSON document on stdout."""


def doctor(arguments: list[str]) -> None:
    """slowwave doctor [--json]"""
    options = _parse(DoctorOptions, arguments, prog="slowwave doctor")
    from slowwave.doctor import run_doctor

    run_doctor(as_json=options.json)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Serve a model, and memories that live on, to OpenAI's clients and to a browser.

    Memories lie in a directory, and are there again after a restart. SIGTERM or Ctrl-C ends open
    replies and loses nothing.
    """

    model: tyro.conf.Positional[Path]
    """Folder of a model to talk to: model.safetensors, config.json and, unless it reads bytes,
    tokenizer.json."""
    memory_dir: Path
    """Directory of the memories; it is made if it is not there."""
    host: str = "127.0.0.1"
    """Address to listen at; one that others can reach needs --api-keys."""
    port: int = 8000
    """Port to listen at."""
    api_keys: Path | None = None
    """File of lines "owner key"; each owner has memories of its own."""
    model_name: str | None = None
    """What clients call the model; the name of its folder if not given."""
    limits: ServeConfig = dataclasses.field(default_factory=ServeConfig)


def serve(arguments: list[str]) -> None:
    """slowwave serve MODEL --memory-dir DIR [--port 8000] [--api-keys FILE]"""
    options = _parse(ServeOptions, arguments, prog="slowwave serve")
    if not 0 < options.port < 65536:
        raise ValueError(f"--port is {options.port}; use 1 to 65535")
    try:
        from slowwave.serving import run
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{error.name} is not installed, and serve needs it; install slowwave[serve]"
        ) from None

    run.serve(
        options.model,
        memory_dir=options.memory_dir,
        host=options.host,
        port=options.port,
        api_keys=options.api_keys,
        model_name=options.model_name,
        config=options.limits,
    )


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "demo": demo,
    "train": train,
    "eval": evaluate_run,
    "probe": probe,
    "reproduce": reproduce,
    "plot": plot,
    "tasks": tasks,
    "bench": bench,
    "serve": serve,
    "doctor": doctor,
}

if __name__ == "__main__":
    main()
