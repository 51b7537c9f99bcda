"""The training loop: batches in, gradients through every pass, a resumable folder out."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from slowwave.models.backbone import HybridLM
from slowwave.ops import native
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.objective import plan_batch, predict
from slowwave.storage.checkpoint import load_tensors, load_weights
from slowwave.tasks.base import Task
from slowwave.training.checkpoint import load_counters, load_progress, save_progress
from slowwave.training.config import TrainConfig
from slowwave.training.cost import count_tokens
from slowwave.training.data import BatchesAhead
from slowwave.training.optimizer import make_optimizers
from slowwave.training.precision import compute_dtype
from slowwave.training.process import StopSignals
from slowwave.training.run_folder import (
    Progress,
    RunFolder,
    count_saved_steps,
    find_checkpoint,
    find_exact,
    has_reached,
)
from slowwave.training.schedule import freeze_at, set_learning_rates, sleep_at


@dataclasses.dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did; `exact` is the newest evaluation's exact match, None before any."""

    progress: Progress
    steps: int
    loss: float
    exact: float | None
    tokens_per_second: float
    seconds_left: float


@dataclasses.dataclass(frozen=True, slots=True)
class Validation:
    """Scores on the validation split: loss in nats a token, share of exact answers, the record."""

    loss: float
    exact: float
    record: dict[str, Any]


class TrainingDiverged(ValueError):
    """The loss or a gradient stopped being a number."""


class Trainer:
    """Trains `model` on `task`, slept by `sleep`, into `folder`; resumes what it finds there.

    validate: scores the model as it is then, every `config.eval_every` steps.
    """

    def __init__(
        self,
        model: HybridLM,
        task: Task,
        sleep: SleepConfig,
        config: TrainConfig,
        folder: RunFolder,
        validate: Callable[[], Validation],
    ) -> None:
        self.model, self.sleep, self.config = model, sleep, config
        self.folder, self._validate = folder, validate
        self.optimizers = make_optimizers(model, config)
        self._batches = BatchesAhead(
            task, seed=config.seed, batch_size=config.batch_size, device=model.device
        )
        self.progress = Progress()
        self._timed_steps, self._timed_seconds, self._batch_tokens = 0, 0.0, 0
        self._exact: float | None = None
        """Of the newest evaluation."""
        model.set_compute_dtype(compute_dtype(config.precision, model.device))
        if config.compile and model.device.type == "cpu" and native.find_obstacle() is None:
            native.load()
        self._run = torch.compile(model.run, dynamic=False) if config.compile else model.run
        self._saved_step = 0

    def resume(self, say: Callable[[str], object] | None = None) -> bool:
        """Continues from the folder's checkpoint if there is one; says whether there was.

        say: is told in a sentence if the metrics end before the checkpoint.
        """
        found = find_checkpoint(self.folder.checkpoint)
        if found is None:
            return False
        freeze_at(max(0, count_saved_steps(self.folder.path) - 1), self.model, self.config)
        self.progress = load_progress(found, self.model, self.optimizers)
        self._saved_step = self.progress.step
        metrics = self.folder.drop_metrics_after(self.progress.step)
        self._exact = find_exact(metrics)
        last = metrics[-1]["step"] if metrics else 0
        if say is not None and any(map(self._is_recorded, range(last + 1, self._saved_step + 1))):
            say(
                f"{self.folder.metrics_file}: ends at step {last:,}, and the checkpoint is at "
                f"{self._saved_step:,}: the lines between are lost; delete {self.folder.path} if "
                "you want them, to train it anew"
            )
        return True

    def start_from(self, folder: RunFolder) -> None:
        """Starts with the weights of a finished run, and counts on from what it cost.

        Raises ValueError if the run is not finished, or its model has other sizes.
        """
        found = find_checkpoint(folder.checkpoint)
        if found is None or not folder.is_finished:
            raise ValueError(
                f"train.start_from is {folder.path}, which holds no finished run with its "
                "checkpoint; train it first"
            )
        weights = found / "model.safetensors"
        load_weights(self.model, load_tensors(weights), weights)
        self.progress = dataclasses.replace(load_counters(found), step=0)

    def train(
        self,
        report: Callable[[StepReport], None] | None = None,
    ) -> bool:
        """Runs to the end of the schedule; returns False if it was interrupted (and saved).

        Raises TrainingDiverged when a number stops being one; the last checkpoint stays. An
        interrupt before any step is worth saving, or a second one, raises KeyboardInterrupt.
        """
        config = self.config
        with StopSignals(may_wait=lambda: self.progress.step > self._saved_step) as signals:
            while self.progress.step < config.steps and not self._has_reached_target():
                loss, norm, seconds = self._step()
                step = self.progress.step
                if step % config.log_every == 0:
                    self._log(loss, norm)
                if self._is_evaluated(step):
                    self._evaluate()
                if report is not None:
                    report(self._report(loss, seconds))
                last = step == config.steps or self._has_reached_target() or signals.is_asked
                if step % config.save_every == 0 or last:
                    self.save()
                if signals.is_asked:
                    return False
        return True

    def save(self) -> None:
        """Writes a checkpoint to resume from."""
        self.folder.sync_metrics()
        save_progress(self.folder.checkpoint, self.model, self.optimizers, self.progress)
        self._saved_step = self.progress.step

    def _step(self) -> tuple[float, float, float]:
        began = time.perf_counter()
        config, step = self.config, self.progress.step
        batch, sleep = self._batches.take(step), self._enter_stage()
        plan = plan_batch(batch, sleep)
        predicted = predict(
            self.model,
            batch,
            plan,
            checkpoint_activations=config.checkpoint_activations,
            run=self._run,
        )
        loss = F.cross_entropy(predicted.logits, predicted.targets)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm).item()
        if not (math.isfinite(loss.item()) and math.isfinite(norm)):
            raise self._diverged(f"loss is {loss.item()} and the gradient norm {norm}", step + 1)
        set_learning_rates(self.optimizers, step, config)
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - began
        self._timed_steps += 1
        self._timed_seconds += seconds
        self._batch_tokens = count_tokens(batch)
        self.progress = Progress(
            step=step + 1,
            tokens=self.progress.tokens + self._batch_tokens,
            flops=self.progress.flops + plan.training_flops(self.model.config),
            seconds=self.progress.seconds + seconds,
        )
        return loss.item(), norm, seconds

    def _enter_stage(self) -> SleepConfig:
        """Freezes what the next step does not train; returns how it is slept."""
        step, config = self.progress.step, self.config
        freeze_at(step, self.model, config)
        if config.compile and step == config.first_stage_steps > 0:
            # Nothing compiled for the first stage is used again, and torch keeps few versions.
            torch.compiler.reset()
        return sleep_at(step, self.sleep, config)

    def _is_evaluated(self, step: int) -> bool:
        return step % self.config.eval_every == 0 or step == self.config.steps

    def _is_recorded(self, step: int) -> bool:
        return step % self.config.log_every == 0 or self._is_evaluated(step)

    def _evaluate(self) -> None:
        scored = self._validate()
        if not math.isfinite(scored.loss):
            raise self._diverged(f"validation loss is {scored.loss}", self.progress.step)
        self._exact = scored.exact
        self.folder.append_metrics(
            {**dataclasses.asdict(self.progress), "evaluation": scored.record}
        )

    def _log(self, loss: float, norm: float) -> None:
        line: dict[str, Any] = {**dataclasses.asdict(self.progress), "loss": loss}
        line["gradient_norm"] = norm
        self.folder.append_metrics(line)

    def _report(self, loss: float, seconds: float) -> StepReport:
        mean_seconds = self._timed_seconds / self._timed_steps
        return StepReport(
            progress=self.progress,
            steps=self.config.steps,
            loss=loss,
            exact=self._exact,
            tokens_per_second=self._batch_tokens / seconds,
            seconds_left=mean_seconds * (self.config.steps - self.progress.step),
        )

    def _has_reached_target(self) -> bool:
        return has_reached(self.config.stop_at, self._exact)

    def _diverged(self, what: str, step: int) -> TrainingDiverged:
        return TrainingDiverged(
            f"{what} at step {step:,}; the last good checkpoint is kept in "
            f"{self.folder.checkpoint}, lower train.muon_lr or train.adamw_lr"
        )
