"""What a figure needs, runs, probes of them or a measurement, and what of it is recorded."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rich.console import Console

from slowwave.config import describe_differences, flatten
from slowwave.experiment import ExperimentConfig, as_recorded, check_same, load_experiment
from slowwave.lab.memory_plots import PROBE_FILE
from slowwave.lab.reproduction.figures import RECIPES, FigureConfig, RunsConfig, Scale
from slowwave.status_line import StatusLine
from slowwave.tasks import TaskConfig, make_task
from slowwave.training.run_folder import find_checkpoint

if TYPE_CHECKING:
    from slowwave.sleep.objective import Batch

State = Literal["recorded", "partly", "to do"]

RESULTS = Path("results")
# Beside what is recorded, which stays as it is.
TRAINED_AGAIN = Path("runs")
SEED = "train.seed"


@dataclasses.dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run that a figure needs. overrides: what it changes of its recipe, by dotted name.

    root: where its folder is; elsewhere than RESULTS when it is trained again.
    """

    recipe: str
    name: str
    overrides: dict[str, Any]
    config: ExperimentConfig
    root: Path = RESULTS

    @property
    def folder(self) -> Path:
        """Where it is recorded."""
        return self.root / self.recipe / self.name

    @property
    def arguments(self) -> list[str]:
        """What follows `slowwave` in the command that makes it."""
        flags = itertools.chain(*(_flag(key, value) for key, value in self.overrides.items()))
        return ["train", str(_recipe_file(self.recipe)), *flags, "--out", str(self.folder)]

    @property
    def settings(self) -> dict[str, Any]:
        """Its config by dotted name."""
        return flatten(self.config.to_dict())


def plan_runs(figure: FigureConfig, scale: Scale, *, seeds: int) -> list[PlannedRun]:
    """Every run of a figure once, in the order to train them: all of seed 0 first.

    Raises ValueError on settings that a recipe refuses, and if two different runs share a name.
    """
    planned: dict[Path, PlannedRun] = {}
    for run in sorted(
        itertools.chain(*(_expand(runs, seeds) for runs in figure.runs(scale))),
        key=lambda run: run.config.train.seed,
    ):
        other = planned.setdefault(run.folder, run)
        if other.config != run.config:
            difference = describe_differences(run.config.to_dict(), other.config.to_dict(), "there")
            raise ValueError(
                f"name {run.name!r} of recipe {run.recipe} stands for different runs "
                f"({difference}); put what tells them apart, or {{train.seed}}, into it"
            )
    return list(planned.values())


def matches(settings: dict[str, Any], where: dict[str, Any]) -> bool:
    """Whether a config, by dotted name, has what the nested `where` asks for."""
    return all(settings.get(key) == value for key, value in flatten(where).items())


def find_state(run: PlannedRun) -> State:
    """What of a run is recorded. Raises ValueError if its folder holds another run."""
    if not (run.folder / "config.json").exists():
        return "to do"
    config = as_recorded(run.config, run.folder)
    check_same(run.folder, config.to_dict(), "move or delete the folder to train it anew")
    if (run.folder / "summary.json").exists():
        return "recorded"
    return "to do" if find_checkpoint(run.folder / "checkpoint") is None else "partly"


class Cost(NamedTuple):
    """What a run takes if it does not stop early."""

    tokens: int
    flops: int


def planned_cost(run: PlannedRun) -> Cost:
    """Tokens and FLOPs of the whole schedule, as `slowwave train` counts them.

    Counted for the first batch; where batches differ in what they score, a little more or less.
    """
    from slowwave.training.cost import count_tokens, run_flops

    config = run.config
    batch, vocab_size = _first_batch(config.task, config.train.batch_size)
    model = dataclasses.replace(config.model, vocab_size=vocab_size)
    flops = run_flops(batch, model, config.sleep, config.train)
    return Cost(count_tokens(batch) * config.train.steps, flops)


@functools.lru_cache(maxsize=8)
def _first_batch(config: TaskConfig, rows: int) -> tuple[Batch, int]:
    """Runs that differ in N share their first batch."""
    task = make_task(config)
    return task.batch("train", range(rows)), task.vocab_size


def probe_file(run: PlannedRun) -> Path:
    """Where the probe of a run is recorded."""
    return run.folder / PROBE_FILE


def list_unprobed(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The runs whose probe is not recorded."""
    return [run for run in runs if not probe_file(run).exists()]


def plan_again(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Runs to train once more: their probe is missing, and the record has no checkpoint."""
    return [again for run in list_unprobed(runs) if (again := _find_trained(run)) != run]


def probe_runs(runs: Sequence[PlannedRun], console: Console) -> None:
    """Probes what is not recorded of trained runs, each into its record."""
    from slowwave.lab.probe import probe_run

    for run in list_unprobed(runs):
        trained = _find_trained(run).folder
        console.print(f"{trained}: probing its fast weights", soft_wrap=True)
        with StatusLine() as status:
            probe_run(trained, run.folder, tell=status.show)


def _find_trained(run: PlannedRun) -> PlannedRun:
    """The run, or the same to be trained elsewhere if its record has no checkpoint."""
    is_lost = find_state(run) == "recorded" and find_checkpoint(run.folder / "checkpoint") is None
    return dataclasses.replace(run, root=TRAINED_AGAIN) if is_lost else run


def bench_file(what: str) -> Path:
    """Where `slowwave bench` keeps what it measured."""
    return RESULTS / "bench" / f"{what}.json"


def bench_command(what: str) -> list[str]:
    """What follows `slowwave` in the command that measures it."""
    return ["bench", what, "--out", str(RESULTS / "bench")]


def _expand(runs: RunsConfig, seeds: int) -> Iterator[PlannedRun]:
    count = seeds if runs.seeds is None else min(seeds, runs.seeds)
    each = flatten(runs.each)
    for seed in range(count):
        for values in itertools.product(*each.values()):
            chosen = dict(zip(each, values, strict=True))
            overrides = {**flatten(runs.set), **chosen, SEED: seed}
            config = load_experiment(_recipe_file(runs.recipe), overrides)
            yield PlannedRun(runs.recipe, fill_name(runs.name, config), overrides, config)


def fill_name(pattern: str, config: ExperimentConfig) -> str:
    """`pattern` with a config's values for {dotted.names}; raises ValueError for unknown ones."""
    settings = flatten(config.to_dict())

    def value(match: re.Match[str]) -> str:
        if match[1] not in settings:
            raise ValueError(f"name {pattern!r} has {match[0]}, which is no setting; mend it")
        return str(settings[match[1]])

    return re.sub(r"\{([^}]*)\}", value, pattern)


def _recipe_file(recipe: str) -> Path:
    return RECIPES / f"{recipe}.toml"


def _flag(key: str, value: Any) -> list[str]:
    name = f"--{key}".replace("_", "-")
    if isinstance(value, bool):
        section, _, field = name.removeprefix("--").rpartition(".")
        return [name if value else f"--{section}.no-{field}"]
    values = value if isinstance(value, list) else [value]
    return [name, *map(str, values)]
