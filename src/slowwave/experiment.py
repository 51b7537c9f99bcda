"""One experiment: the configs of task, model, sleep and training in one TOML recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slowwave.config import Config, describe_differences, override, read_toml
from slowwave.models.config import ModelConfig
from slowwave.sleep.config import SleepConfig
from slowwave.tasks import TaskSection, make_task
from slowwave.training.config import Precision, TrainConfig

if TYPE_CHECKING:
    from slowwave.evaluation.evaluate import Record, Scored
    from slowwave.models.backbone import HybridLM
    from slowwave.tasks.base import Task
    from slowwave.training.run_folder import RunFolder, Standing
    from slowwave.training.trainer import StepReport, Trainer

TEST_EXAMPLES = 1024
PASSES_TRIED = (1, 2, 3, 4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentConfig(Config):
    """All that a run depends on."""

    name: str
    """Name of the recipe; runs of one recipe share a folder under results/."""
    task: TaskSection
    """What is learned."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    """Sizes of the model."""
    sleep: SleepConfig = dataclasses.field(default_factory=SleepConfig)
    """When and how it sleeps."""
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    """How it is trained."""


def load_experiment(
    recipe: str | Path, overrides: dict[str, Any] | None = None
) -> ExperimentConfig:
    """Reads a TOML recipe, with dotted overrides such as {"sleep.passes": 4}."""
    values = override(read_toml(recipe), overrides or {})
    try:
        return ExperimentConfig.from_dict(values)
    except ValueError as error:
        raise ValueError(f"{recipe}: {error}") from None


def build(config: ExperimentConfig) -> tuple[HybridLM, Task]:
    """The freshly drawn model, in its compute dtype, and the task of an experiment.

    Raises ValueError if the window does not divide the task's context or is not the one that the
    task counts in, if no window would be slept, if a first stage has nothing to evict or to train,
    if the model lacks what its sleeps write into, or if the vocabularies differ.
    """
    from slowwave.models.backbone import HybridLM
    from slowwave.training.precision import compute_dtype

    _check_windows(config)
    _check_first_stage(config)
    if config.sleep.passes > 1:
        config.sleep.consolidator.returns_to(config.model)
    task = make_task(config.task)
    _check_context(config, task)
    if config.model.vocab_size not in (0, task.vocab_size):
        raise ValueError(
            f"model.vocab_size is {config.model.vocab_size}, but task {config.task.name} has "
            f"{task.vocab_size} token ids; use that, or 0"
        )
    sizes = dataclasses.replace(config.model, vocab_size=task.vocab_size)
    model = HybridLM(sizes, seed=config.train.seed)
    model.set_compute_dtype(compute_dtype(config.train.precision, model.device))
    return model, task


def _check_windows(config: ExperimentConfig) -> None:
    task, sleep = config.task, config.sleep
    if sleep.eviction == "none":
        return
    if task.own_window not in (None, sleep.window):
        raise ValueError(
            f"sleep.window is {sleep.window}, but task {task.name} counts in windows of "
            f"task.window = {task.own_window} tokens; use the same number for both"
        )
    if task.has_loss_throughout and sleep.loss_windows != "sleep_after":
        raise ValueError(
            f"sleep.loss_windows is {sleep.loss_windows}, but every window of task {task.name} has "
            "loss, so that none would be slept; use sleep_after"
        )


def _check_context(config: ExperimentConfig, task: Task) -> None:
    if config.sleep.eviction != "none" and task.context_tokens % config.sleep.window:
        raise ValueError(
            f"sleep.window is {config.sleep.window}, but task {config.task.name} has a context of "
            f"{task.context_tokens} tokens; use a divisor of it"
        )


def _check_first_stage(config: ExperimentConfig) -> None:
    train = config.train
    if config.sleep.eviction == "none" and train.first_stage_steps:
        raise ValueError(
            f"train.first_stage_fraction is {train.first_stage_fraction} with sleep.eviction none, "
            "and the first stage evicts; use 0, or another eviction"
        )
    if train.first_stage_trains == "recurrent" and set(config.model.layers) == {"attn"}:
        raise ValueError(
            "train.first_stage_trains is recurrent, but model.layers has attn alone; use all"
        )


def look_up(config: ExperimentConfig, out: str | Path) -> Standing:
    """Where the run of a config in folder `out` stands; loads no torch.

    Raises ValueError if the folder holds another run, or files that a run cannot go on from.
    """
    from slowwave.training.run_folder import RunFolder, find_standing

    folder = RunFolder(out)
    if folder.is_begun:
        if not folder.config_file.exists():
            raise ValueError(
                f"{out}: no config.json beside its run; restore it, or use another --out"
            )
        config = as_recorded(config, folder.path)
        check_same(folder.path, config.to_dict(), "use another --out, or the options of the run")
    return find_standing(folder, config.train)


def run_training(
    config: ExperimentConfig,
    out: str | Path,
    *,
    report: Callable[[StepReport], None] | None = None,
    on_scored: Callable[[Scored], object] | None = None,
    say: Callable[[str], object] | None = None,
) -> dict[str, Any] | None:
    """Trains into folder `out`, continuing a run of the same config that it holds.

    What precision "auto" comes to is recorded, and a run goes on with what it began with.

    say: is told in a sentence what is about to happen, where that takes long. on_scored: see
    `evaluate`.

    Returns the summary, or None if the run was interrupted (it can be continued). Raises
    ValueError if the folder holds another run or there is none to start from, TrainingDiverged if
    numbers stop being numbers.
    """
    import torch

    from slowwave.storage.environment import describe_environment
    from slowwave.training.precision import (
        choose_precision,
        describe_precision,
        describe_slow_choice,
    )
    from slowwave.training.run_folder import RunFolder

    if config.train.threads is not None:
        torch.set_num_threads(config.train.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = as_recorded(config, Path(out))
    config = _with_precision(config, choose_precision(config.train.precision, device))
    model, task = build(config)
    model.to(device)
    standing = look_up(config, out)
    if standing.summary is not None:
        return standing.summary
    folder, tell = RunFolder(out), say or (lambda _: None)
    trainer = make_trainer(config, model, task, folder, on_scored)
    environment = describe_environment(config.train.seed)
    environment |= describe_precision(config.train.precision, device)
    if trainer.resume(tell):
        folder.note_resumption(trainer.progress.step, environment)
    else:
        if config.train.start_from is not None:
            trainer.start_from(RunFolder(config.train.start_from))
        folder.begin(config.to_dict(), environment)
    if trainer.progress.step < config.train.steps:
        if slow := describe_slow_choice(config.train.precision, device):
            tell(slow)
        if config.train.compile:
            tell("the first step also compiles the model, which takes a minute or more")
    if not trainer.train(report):
        return None
    most = config.sleep.consolidator.most_passes
    tried = () if config.sleep.eviction == "none" else (n for n in PASSES_TRIED if n <= most)
    passes = tuple(sorted({*tried, config.sleep.passes}))
    examples = config.train.test_examples
    records = score(model, task, config, passes=passes, examples=examples, on_scored=on_scored)
    summary = {
        "name": config.name,
        "parameters": model.num_parameters,
        **dataclasses.asdict(trainer.progress),
        "finished_schedule": trainer.progress.step == config.train.steps,
        "trained_passes": config.sleep.passes,
        "group_name": task.group_name,
        "bytes_per_token": task.bytes_per_token,
        "floors": task.floors(),
        "test": [record.to_dict() for record in records],
    }
    folder.write_summary(summary)
    return summary


def make_trainer(
    config: ExperimentConfig,
    model: HybridLM,
    task: Task,
    folder: RunFolder,
    on_scored: Callable[[Scored], object] | None = None,
) -> Trainer:
    """What trains an experiment; it scores the validation split as it goes (`evaluate`)."""
    from slowwave.evaluation.evaluate import evaluate
    from slowwave.training.trainer import Trainer, Validation

    def validate() -> Validation:
        (record,) = evaluate(
            model,
            task,
            sleep=config.sleep,
            split="validation",
            examples=config.train.eval_examples,
            batch_size=config.train.batch_size,
            on_scored=on_scored,
        )
        return Validation(record.overall.loss, record.overall.exact, record.to_dict())

    return Trainer(model, task, config.sleep, config.train, folder, validate)


def as_recorded(config: ExperimentConfig, folder: Path) -> ExperimentConfig:
    """The config; if it leaves the precision open, with that of the run that `folder` holds."""
    if config.train.precision != "auto" or not (folder / "config.json").exists():
        return config
    return _with_precision(config, read_config(folder).train.precision)


def _with_precision(config: ExperimentConfig, precision: Precision) -> ExperimentConfig:
    train = dataclasses.replace(config.train, precision=precision)
    return dataclasses.replace(config, train=train)


def read_config(folder: Path) -> ExperimentConfig:
    """The config of a run; raises ValueError naming its file if that cannot be read."""
    from slowwave.storage.json_files import read_json

    path = folder / "config.json"
    values = read_json(path)
    try:
        return ExperimentConfig.from_dict(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def check_same(folder: Path, config: dict[str, Any], remedy: str) -> None:
    """Raises ValueError, which names what differs, if the run in `folder` has another config."""
    recorded = read_config(folder).to_dict()
    if recorded != config:
        difference = describe_differences(config, recorded, "in the run")
        raise ValueError(f"{folder}: {difference}; {remedy}")


def score(
    model: HybridLM,
    task: Task,
    config: ExperimentConfig,
    *,
    passes: tuple[int, ...],
    examples: int | None = None,
    on_scored: Callable[[Scored], object] | None = None,
) -> list[Record]:
    """Scores the test split (TEST_EXAMPLES of it if not said), slept with each N in `passes`."""
    from slowwave.evaluation.evaluate import evaluate

    return evaluate(
        model,
        task,
        sleep=config.sleep,
        split="test",
        examples=TEST_EXAMPLES if examples is None else examples,
        passes=passes,
        on_scored=on_scored,
    )


def retask(config: ExperimentConfig, changes: dict[str, Any]) -> tuple[ExperimentConfig, Task]:
    """The experiment with fields of its task changed, to score beyond what was trained.

    A name that begins with "sleep." is of the sleep settings. Raises ValueError for unknown fields,
    for a window that is not the task's or does not divide its context, and for a task that the
    trained vocabulary does not fit.
    """
    named = {
        key if key.startswith("sleep.") else f"task.{key}": value for key, value in changes.items()
    }
    changed = ExperimentConfig.from_dict(override(config.to_dict(), named))
    _check_windows(changed)
    task = make_task(changed.task)
    _check_context(changed, task)
    before, after = make_task(config.task).vocab_size, task.vocab_size
    if before != after:
        raise ValueError(
            f"--set {', '.join(f'{key}={value}' for key, value in changes.items())} needs {after} "
            f"token ids and the model has {before}; change only what keeps the vocabulary"
        )
    return changed, task


def load_run(folder: str | Path) -> tuple[ExperimentConfig, HybridLM, Task]:
    """The config, trained model and task of a run folder or a shipped checkpoint folder.

    The folder holds config.json (the experiment) and checkpoint/model.safetensors. What was
    trained in bfloat16 computes in float32 where bfloat16 is slow.
    """
    from slowwave.storage.checkpoint import load_tensors, load_weights
    from slowwave.storage.folder_kind import read_folder_config
    from slowwave.training.run_folder import find_checkpoint

    path = Path(folder)
    config = read_folder_config(path, "run", ExperimentConfig)
    checkpoint = path / "checkpoint"  # one that is shipped has weights alone
    weights = (find_checkpoint(checkpoint) or checkpoint) / "model.safetensors"
    if not weights.exists():
        raise ValueError(
            f"{path}: is a run without its weights, {weights.relative_to(path)}, as recorded runs "
            "are; name one that was trained here"
        )
    narrow = config.train.precision == "bfloat16"
    model, task = build(_with_precision(config, "auto") if narrow else config)
    load_weights(model, load_tensors(weights), weights)
    return config, model, task


def export_run(folder: str | Path, out: str | Path) -> None:
    """Makes a model to talk to, as `slowwave.load` reads it, from a run on a task of text.

    Weights are as trained, matrix products in float32 from now on. Raises ValueError if the task is
    not one of text, or `out` is there already.
    """
    from slowwave.runtime.config import ChatFormat
    from slowwave.runtime.model_folder import TalkerConfig, save
    from slowwave.storage.tokenizer import load_tokenizer

    config, model, _ = load_run(folder)
    language = config.task.language
    if language is None:
        raise ValueError(
            f"{folder}: was trained on {config.task.name}, which is no text; name a run of "
            "conversation or text"
        )
    if Path(out).exists():
        raise ValueError(f"{out} is there already; name another folder")
    chat = ChatFormat() if language.is_chat else None
    talker = TalkerConfig(model=model.config, sleep=config.sleep, chat=chat)
    save(out, model, load_tokenizer(language.tokenizer), talker)
