"""Training steps: `rule110` at the paper's size, and a hybrid of 1.4 B weights on a GPU."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from slowwave.lab.bench.measure import (
    Machine,
    Shape,
    Times,
    Work,
    matmul_gflops,
    measure_extra_nbytes,
    time_in_turn,
)
from slowwave.lab.bench.models import MODEL
from slowwave.lab.bench.report import Row, Section, timed_row
from slowwave.models.backbone import HybridLM, Run
from slowwave.models.config import ModelConfig
from slowwave.models.linear import Linear
from slowwave.ops.gated_rules import fastest_backend
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.objective import Batch, Plan, plan_batch, predict
from slowwave.sleep.schedule import NO_LOSS, cut_training
from slowwave.sleep.unroll import unroll
from slowwave.tasks.rule110 import Rule110Config
from slowwave.tasks.rule110.task import Rule110
from slowwave.training.config import TrainConfig
from slowwave.training.optimizer import make_optimizers
from slowwave.training.precision import choose_precision, compute_dtype
from slowwave.training.process import keep_freed_memory

BATCH = 256
GPU_BATCH = 512
MEMORY_BATCH = 32
TASK = Rule110Config(width=24, num_states=4, steps=8)
PASSES = (1, 4)
ROUNDS = 5
WARMUPS = 2

LARGE_MODEL = ModelConfig(
    vocab_size=49_152,
    width=2048,
    layers=("gdn", "gdn", "gdn", "attn") * 6,
    mlp_hidden=5632,
    attn_heads=16,
    delta_heads=16,
    key_dim=96,
    value_dim=128,
)
# Lengths and windows of the paper's Fig. 6.
LARGE_LENGTH = 12_000
LARGE_WINDOWS = (1000, 2000, 4000)
LARGE_PASSES = (1, 2, 4)
LARGE_BATCHES = (1, 2, 4, 8)
LARGE_SCORED = 16
LARGE_SQUARE = 8192
LARGE_ROUNDS = 3
PAPER_TOKENS_PER_SECOND = {(1000, 1): 19_800, (1000, 2): 9_800, (1000, 4): 4_600}


def run_train(device: torch.device, machine: Machine) -> list[Section]:
    """Forward and backward in the faster dtype, compiled, for N = 1 and 4; the optimizer alone.

    The machine's rate is measured at the shapes of this model.
    """
    keep_freed_memory()
    num_rows = GPU_BATCH if device.type == "cuda" else BATCH
    model, batch = _model_and_batch(num_rows, device)
    run = torch.compile(model.run, dynamic=False)
    sleeps = {f"N = {n}": SleepConfig(window=TASK.width, passes=n) for n in PASSES}
    drop_gradients = functools.partial(model.zero_grad, set_to_none=True)
    works = {
        name: Work(lambda _, sleep=sleep: _step(model, batch, sleep, run), prepare=drop_gradients)
        for name, sleep in sleeps.items()
    }
    optimizers = make_optimizers(model, TrainConfig())
    works["optimizer"] = Work(
        lambda _: [optimizer.step() for optimizer in optimizers.values()],
        prepare=functools.partial(_fill_gradients, model, 1e-3),
    )
    shapes = product_shapes(model, num_rows * TASK.width)
    before = _product_rates(shapes, device)
    times = time_in_turn(works, rounds=ROUNDS, warmups=WARMUPS)
    after = _product_rates(shapes, device)
    rates = {name: max(before[name], after[name]) for name in before}
    rated = dataclasses.replace(machine, float32_gflops=max(rates.values()))  # what shares are of
    targets = batch.stream.targets
    flops = {name: _count_flops(model.config, targets, sleep) for name, sleep in sleeps.items()}
    first = next(iter(sleeps))
    rows = list[Row]()
    what = "forward + backward"
    for name in sleeps:
        row = timed_row(what, name, times, reference=first, machine=rated, flops=flops[name])
        assert row.time_ratio is not None
        ratio, to = row.time_ratio / (flops[name] / flops[first]), f"{first}, by FLOPs"
        rows.append(dataclasses.replace(row, time_ratio=ratio, ratio_to=to))
    rows.append(timed_row("a step of Muon and AdamW", "optimizer", times))
    tokens = batch.stream.inputs.numel()
    notes = [
        f"batch {num_rows}, {tokens / times[first].median:,.0f} tokens/s at {first}; products in "
        f"{choose_precision('auto', device)}; delta rule: {fastest_backend(device, torch.float32)}",
        "ratios are of times over ratios of FLOPs",
        "matmul share: all counted operations over the rate of the projections' and feed-forward "
        "products of this model, forward and backward, in the faster dtype: "
        + ", ".join(f"{name} {rate:,.0f} GFLOP/s" for name, rate in rates.items()),
    ]
    return [
        Section(title="Training rule110 at the paper's size", rows=rows, notes=notes),
        _measure_memory(),
    ]


def run_large(device: torch.device, machine: Machine) -> list[Section]:
    """Forward and backward in bfloat16, checkpointed; the best of several batches."""
    model = HybridLM(LARGE_MODEL).to(device)
    model.set_compute_dtype(torch.bfloat16)
    rate = matmul_gflops({(LARGE_SQUARE, LARGE_SQUARE, LARGE_SQUARE): 1}, torch.bfloat16, device)
    rated = dataclasses.replace(machine, float32_gflops=rate)  # what shares are of
    rows: list[Row] = []
    for window in LARGE_WINDOWS:
        for passes in LARGE_PASSES:
            sleep = SleepConfig(window=window, passes=passes)
            batch, times = _time_best_batch(model, sleep)
            tokens_per_second = batch * LARGE_LENGTH / times.median
            by = f"batch {batch}, {tokens_per_second:,.0f} tokens/s"
            flops = _count_flops(LARGE_MODEL, _large_targets(batch), sleep)
            what = f"window {window:,}, N = {passes}"
            row = timed_row(what, by, {by: times}, machine=rated, flops=flops)
            paper = PAPER_TOKENS_PER_SECOND.get((window, passes))
            if paper is not None:
                row = dataclasses.replace(
                    row,
                    time_ratio=paper / tokens_per_second,
                    ratio_to=f"the paper, {paper:,} tokens/s",
                )
            rows.append(row)
    notes = [
        f"{model.num_parameters / 1e9:.2f} B parameters, {LARGE_LENGTH:,} tokens a row, best of "
        f"batches {LARGE_BATCHES}; the paper measured on one H200",
        f"matmul share is of {rate / 1e3:,.0f} TFLOP/s; computing again earns no credit",
    ]
    return [Section(title="Training a 1.4 B hybrid", rows=rows, notes=notes)]


def memory_work(passes: str, checkpoint: str) -> Callable[[], None]:
    """The step whose memory a fresh process measures; not compiled, MEMORY_BATCH rows."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, batch = _model_and_batch(MEMORY_BATCH, device)
    sleep = SleepConfig(window=TASK.width, passes=int(passes))
    _fill_gradients(model, 0.0)  # there before the step, as in training
    return functools.partial(_step, model, batch, sleep, None, checkpoint=checkpoint == "True")


def product_shapes(model: HybridLM, rows: int) -> Counter[Shape]:
    """The products of one pass of the blocks over `rows` tokens, forward and backward."""
    shapes: Counter[Shape] = Counter()
    for module in model.blocks.modules():
        if isinstance(module, Linear):
            columns, inner = module.weight.shape
            shapes.update([(rows, inner, columns), (rows, columns, inner), (inner, rows, columns)])
    return shapes


def _model_and_batch(num_rows: int, device: torch.device) -> tuple[HybridLM, Batch]:
    """MODEL with the vocabulary of TASK, in the faster dtype, and the first examples of TASK."""
    task = Rule110(TASK)
    model = HybridLM(dataclasses.replace(MODEL, vocab_size=task.vocab_size)).to(device)
    model.set_compute_dtype(compute_dtype("auto", device))
    return model, task.batch("train", range(num_rows)).to(device)


def _step(
    model: HybridLM, batch: Batch, sleep: SleepConfig, run: Run | None, *, checkpoint: bool = False
) -> None:
    plan = plan_batch(batch, sleep)
    predicted = predict(model, batch, plan, checkpoint_activations=checkpoint, run=run)
    F.cross_entropy(predicted.logits, predicted.targets).backward()


def _fill_gradients(model: HybridLM, value: float) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, value)


def _product_rates(shapes: Counter[Shape], device: torch.device) -> dict[str, float]:
    return {
        name: matmul_gflops(shapes, dtype, device)
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
    }


def _count_flops(model: ModelConfig, targets: Tensor, sleep: SleepConfig) -> int:
    """Of a training step with targets (B, T)."""
    segments, num_scored = cut_training(targets, sleep), int((targets != NO_LOSS).sum())
    return 3 * Plan(sleep, segments, len(targets), num_scored).flops(model)


def _measure_memory() -> Section:
    """Peak memory of a step, with and without checkpointed activations."""
    rows: list[Row] = []
    for passes in PASSES:
        kept, checkpointed = (
            measure_extra_nbytes(__name__, "memory_work", str(passes), str(checkpoint))
            for checkpoint in (False, True)
        )
        what, ratio = f"a step, N = {passes}", dict[str, Any]()
        if kept and checkpointed is not None:
            ratio = {"memory_ratio": checkpointed / kept, "ratio_to": "all kept"}
        rows.append(Row(what=what, by="all kept", nbytes=kept))
        rows.append(Row(what=what, by="checkpointed", nbytes=checkpointed, **ratio))
    note = f"batch {MEMORY_BATCH}, not compiled; nbytes: most that the step adds"
    return Section(title="Memory of a training step", rows=rows, notes=[note])


def _time_best_batch(model: HybridLM, sleep: SleepConfig) -> tuple[int, Times]:
    """The batch with the most tokens per second among those that fit."""
    best: tuple[int, Times] | None = None
    for batch in LARGE_BATCHES:
        torch.compiler.reset()  # every shape anew: past a limit torch stops compiling, in silence
        run = torch.compile(model.run, dynamic=False)
        work = Work(functools.partial(_large_step, model, sleep, run, batch))
        try:
            times = time_in_turn({"step": work}, rounds=LARGE_ROUNDS, warmups=2)["step"]
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        if best is None or times.median / batch < best[1].median / best[0]:
            best = batch, times
    if best is None:
        raise ValueError(
            f"not even a batch of {LARGE_BATCHES[0]} fits this GPU's memory; use a larger one"
        )
    return best


def _large_step(model: HybridLM, sleep: SleepConfig, run: Run, batch: int) -> None:
    tokens = torch.zeros(batch, LARGE_LENGTH, dtype=torch.int64, device=model.device)
    targets = _large_targets(batch).to(model.device)
    rollout = unroll(
        model, tokens, targets, sleep, checkpoint_activations=True, keep_hidden=False, run=run
    )
    F.cross_entropy(rollout.logits, targets[targets != NO_LOSS]).backward()
    model.zero_grad(set_to_none=True)


def _large_targets(batch: int) -> Tensor:
    """Loss on the last LARGE_SCORED tokens, as for one answer."""
    targets = torch.full((batch, LARGE_LENGTH), NO_LOSS)
    targets[:, -LARGE_SCORED:] = 0
    return targets
