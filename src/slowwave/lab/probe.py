"""What the fast weights hold after each pass: linear probes for the cells of Rule 110, evolved.

A state of cells is read in a window of its own and slept on with N passes. Which of its cells, 0 to
t steps of the automaton later, can be read off the fast weights by a linear map: after each pass,
and after how many later windows?
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from slowwave.evaluation.evaluate import evaluate
from slowwave.experiment import build, load_run
from slowwave.lab.memory_plots import PROBE_EXAMPLES, PROBE_FILE
from slowwave.models.backbone import HybridLM
from slowwave.sleep.awake import read_awake
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.consolidate import consolidate
from slowwave.sleep.stream import read_stream
from slowwave.storage.json_files import write_json
from slowwave.tasks.base import Task
from slowwave.tasks.draws import SPLITS
from slowwave.tasks.rule110.task import Rule110

BATCH_SIZE = 256
STRENGTHS = tuple(10.0**exponent for exponent in range(-4, 3))
# Features that vary less than this share of the one that varies most are left out as rounding.
LEAST_SPREAD = 1e-6

Tell = Callable[[str], object]


def probe_run(
    folder: Path, out: Path, *, examples: int = PROBE_EXAMPLES, tell: Tell = lambda _: None
) -> dict[str, Any]:
    """Probes the fast weights of a run, and of its model before training; writes out/probe.json.

    See `probe_fast_weights`.
    """
    config, model, task = load_run(folder)
    untrained, _ = build(config)
    found = probe_fast_weights(model, untrained, task, config.sleep, examples=examples, tell=tell)
    write_json(out / PROBE_FILE, found)
    return found


def probe_fast_weights(
    model: HybridLM,
    untrained: HybridLM,
    task: Task,
    sleep: SleepConfig,
    *,
    examples: int,
    tell: Tell = lambda _: None,
) -> dict[str, Any]:
    """Probes model, and untrained as a control, during the sleep on the last window of a context.

    `examples` of the train split fit the probes, a quarter as many of the validation and of the
    test split choose their penalties and score them. tell: is told what is being done. What
    probe.json holds:

    passes, steps: N and t. examples: how many of each split. fast_weights: how many numbers a probe
    reads.
    trained, untrained: test accuracy by [pass - 1][windows since][steps], "first" of the first cell
    (after t steps the label), "all" as a mean over all cells. Windows since: 0 is the state slept
    on last, and the passes of that sleep are those counted.
    floor: the same by [steps], of saying what most training examples have.
    answers: share of labels that the model itself gets right, by [windows since].

    Raises ValueError if the task is not Rule 110, if not every state has a window of its own, or if
    nothing is slept on or there are no fast weights.
    """
    rule110 = _check(model, task, sleep, examples)
    counts = dict(zip(SPLITS, (examples, examples // 4, examples // 4), strict=True))
    tokens = {
        split: rule110.batch(split, range(count)).stream.inputs[:, : rule110.context_tokens]
        for split, count in counts.items()
    }
    bits = {split: _evolved(rule110, split, count) for split, count in counts.items()}
    majority = bits["train"].mean(dim=0) > 0.5
    tell("asking the model")
    record = evaluate(model, task, sleep=sleep, examples=counts["test"])[0]
    accuracies = {
        name: _accuracies(
            of, sleep, tokens, bits, lambda doing, n=name: tell(f"{n} model: {doing}")
        )
        for name, of in (("trained", model), ("untrained", untrained))
    }
    return {
        "passes": sleep.passes,
        "steps": rule110.config.steps,
        "examples": counts,
        "fast_weights": sum(weights[0].numel() for weights in model.initial_state(1).fast_weights),
        **{name: _by_cells(accuracy) for name, accuracy in accuracies.items()},
        "floor": _by_cells((bits["test"] == majority).double().mean(dim=(0, 1))),
        "answers": [record.groups[label].token_accuracy for label in task.group_labels[::-1]],
    }


def read_passes(model: HybridLM, tokens: Tensor, sleep: SleepConfig) -> Tensor:
    """(N, B, F): the fast weights after each pass of the sleep on the last window of tokens (B, T).

    The windows before are read and slept on as ever. F counts those of all recurrent layers.
    """
    last = tokens.shape[1] - sleep.window
    passes: list[Tensor] = []
    with torch.no_grad():
        _, state = read_stream(model, tokens[:, :last], model.initial_state(len(tokens)), sleep)
        _, state = read_awake(model, tokens[:, last:], state, sleep, predicts=False)
        consolidate(
            model,
            state,
            passes=sleep.passes,
            sleep=sleep,
            on_pass=lambda _, slept: passes.append(
                torch.cat([weights.flatten(1) for weights in slept.fast_weights], dim=1)
            ),
        )
    return torch.stack(passes)


class Samples(NamedTuple):
    """features: (E, F) float64 of E examples. bits: (E, M) float64, 0 or 1."""

    features: Tensor
    bits: Tensor


def probe_accuracy(train: Samples, validation: Samples, test: Samples) -> Tensor:
    """(M,): for each bit the share of test examples that a linear probe gets right.

    The probe is a ridge regression of standardised features, with a threshold at one half. For each
    bit apart, its penalty is the one of STRENGTHS (in units of E) with the least squared error on
    the validation examples. Where features tell nothing, it says what most training bits are.
    """
    mean, scale = _standard(train.features)
    seen, held, unseen = ((s.features - mean) / scale for s in (train, validation, test))
    share = train.bits.mean(dim=0)
    bits = train.bits - share
    examples, features = seen.shape
    # The smaller of two systems that have the same solution.
    is_primal = features <= examples
    gram = seen.T @ seen if is_primal else seen @ seen.T
    right_side = seen.T @ bits if is_primal else bits
    unit = examples * torch.eye(len(gram), dtype=gram.dtype)
    least, accuracy = torch.full_like(share, torch.inf), torch.zeros_like(share)
    for strength in STRENGTHS:
        solved = torch.cholesky_solve(right_side, torch.linalg.cholesky(gram + strength * unit))
        weights = solved if is_primal else seen.T @ solved
        error = (held @ weights + share - validation.bits).square().mean(dim=0)
        right = (unseen @ weights + share > 0.5) == (test.bits > 0.5)
        accuracy = torch.where(error < least, right.double().mean(dim=0), accuracy)
        least = torch.minimum(error, least)
    return accuracy


def _standard(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature, (F,); infinite for those that do not vary."""
    mean = features.mean(dim=0)
    spread = features.std(dim=0, correction=0)
    return mean, torch.where(spread > LEAST_SPREAD * spread.max(), spread, torch.inf)


def _check(model: HybridLM, task: Task, sleep: SleepConfig, examples: int) -> Rule110:
    """The task, if it can be probed."""
    if examples < 8:
        raise ValueError(f"examples is {examples}; use 8 or more")
    if not isinstance(task, Rule110):
        raise ValueError(
            f"task is {task.config.name}, and only states of rule110 evolve; name a run of rule110"
        )
    if sleep.eviction == "none":
        raise ValueError("sleep.eviction is none, which never sleeps; name a run that sleeps")
    if sleep.window != task.config.width:
        raise ValueError(
            f"sleep.window is {sleep.window} and states have {task.config.width} cells; name a run "
            "whose states have a window each"
        )
    if not model.initial_state(1).fast_weights:
        raise ValueError(
            f"model.layers is {', '.join(model.config.layers)}, which have no fast weights; name a "
            "run with a recurrent layer"
        )
    return task


def _evolved(task: Rule110, split: str, count: int) -> Tensor:
    """Bits (E, A, t + 1, width) float64 by windows since and steps: newest state first."""
    steps = range(task.config.steps + 1)
    cells = np.stack([task.evolved_cells(split, range(count), s) for s in steps], axis=2)
    return torch.from_numpy(cells).flip(1).double()


def _accuracies(
    model: HybridLM,
    sleep: SleepConfig,
    tokens: dict[str, Tensor],
    bits: dict[str, Tensor],
    tell: Tell,
) -> Tensor:
    """Test accuracy (N, A, t + 1, width) of the probes of a model."""
    read: dict[str, Tensor] = {}
    for split in SPLITS:
        batches = tokens[split].to(model.device).split(BATCH_SIZE)
        passes: list[Tensor] = []
        for number, batch in enumerate(batches, 1):
            tell(f"reading states, batch {number} of {len(batches)}")
            passes.append(read_passes(model, batch, sleep).cpu())
        read[split] = torch.cat(passes, dim=1)
    accuracies: list[Tensor] = []
    for n in range(sleep.passes):
        tell(f"fitting the probes of pass {n + 1} of {sleep.passes}")
        samples = (Samples(read[s][n].double(), bits[s].flatten(1)) for s in SPLITS)
        accuracies.append(probe_accuracy(*samples).view(bits["test"].shape[1:]))
    return torch.stack(accuracies)


def _by_cells(accuracy: Tensor) -> dict[str, Any]:
    """accuracy (..., width) of the first cell and of all."""
    return {"first": accuracy[..., 0].tolist(), "all": accuracy.mean(dim=-1).tolist()}
