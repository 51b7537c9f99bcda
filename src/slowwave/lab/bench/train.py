"""Training steps of `rule110` at the paper's size, beside the machine's rate at their shapes."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable

import torch
import torch.nn.functional as F

from slowwave.evaluation.evaluate import predict
from slowwave.evaluation.flops import batch_flops, training_flops
from slowwave.lab.bench.machine import Machine, Shape, matmul_gflops
from slowwave.lab.bench.memory import measure_extra_nbytes
from slowwave.lab.bench.models import MODEL
from slowwave.lab.bench.report import Row, Section, timed_row
from slowwave.lab.bench.timing import Times, Work, time_in_turn
from slowwave.models.backbone import HybridLM, Run
from slowwave.models.linear import Linear
from slowwave.ops.gated_rules import fastest_backend
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.objective import Batch
from slowwave.sleep.schedule import NO_LOSS, cut_training
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


def run_train(device: torch.device, machine: Machine) -> list[Section]:
    """Forward and backward in the faster dtype, compiled, for N = 1 and 4; the optimizer alone."""
    del machine
    keep_freed_memory()
    task = Rule110(TASK)
    num_rows = GPU_BATCH if device.type == "cuda" else BATCH
    batch = task.batch("train", list(range(num_rows))).to(device)
    model = HybridLM(dataclasses.replace(MODEL, vocab_size=task.vocab_size)).to(device)
    model.set_compute_dtype(compute_dtype("auto", device))
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
        prepare=functools.partial(_make_gradients, model),
    )
    shapes = product_shapes(model, num_rows * TASK.width)
    before = _product_rates(shapes, device)
    times = time_in_turn(works, rounds=ROUNDS, warmups=WARMUPS)
    after = _product_rates(shapes, device)
    rates = {name: max(before[name], after[name]) for name in before}
    flops = {name: _count_flops(model, batch, sleep) for name, sleep in sleeps.items()}
    first = next(iter(sleeps))
    rows = [
        _step_row(name, times, first, flops, max(rates.values()))
        if name in sleeps
        else timed_row("a step of Muon and AdamW", name, times[name])
        for name in works
    ]
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


def _step_row(
    name: str, times: dict[str, Times], first: str, flops: dict[str, int], rate: float
) -> Row:
    row = timed_row(
        "forward + backward",
        name,
        times[name],
        reference=(f"{first}, by FLOPs", times[first]),
        flops=flops[name],
    )
    assert row.gflops is not None and row.time_ratio is not None
    return dataclasses.replace(
        row,
        matmul_share=row.gflops / rate,
        time_ratio=row.time_ratio / (flops[name] / flops[first]),
    )


def _product_rates(shapes: Counter[Shape], device: torch.device) -> dict[str, float]:
    return {
        name: matmul_gflops(shapes, dtype, device)
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
    }


def _make_gradients(model: HybridLM) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)


def memory_work(passes: str, checkpoint: str) -> Callable[[], None]:
    """The step whose memory a fresh process measures; not compiled, MEMORY_BATCH rows."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task = Rule110(TASK)
    batch = task.batch("train", list(range(MEMORY_BATCH))).to(device)
    model = HybridLM(dataclasses.replace(MODEL, vocab_size=task.vocab_size)).to(device)
    model.set_compute_dtype(compute_dtype("auto", device))
    sleep = SleepConfig(window=TASK.width, passes=int(passes))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)  # there before the step, as in training
    return functools.partial(_step, model, batch, sleep, None, checkpoint=checkpoint == "True")


def _measure_memory() -> Section:
    """Peak memory of a step, with all activations kept and with checkpoints."""
    rows = [
        Row(
            what=f"a step, N = {passes}",
            by="checkpointed" if checkpoint else "all kept",
            nbytes=measure_extra_nbytes(__name__, "memory_work", str(passes), str(checkpoint)),
        )
        for passes in PASSES
        for checkpoint in (False, True)
    ]
    note = f"batch {MEMORY_BATCH}, not compiled; nbytes: most that the step adds"
    return Section(title="Memory of a training step", rows=rows, notes=[note])


def product_shapes(model: HybridLM, rows: int) -> Counter[Shape]:
    """The products of one pass of the blocks over `rows` tokens, forward and backward."""
    shapes: Counter[Shape] = Counter()
    for module in model.blocks.modules():
        if isinstance(module, Linear):
            columns, inner = module.weight.shape
            shapes.update([(rows, inner, columns), (rows, columns, inner), (inner, rows, columns)])
    return shapes


def _step(
    model: HybridLM, batch: Batch, sleep: SleepConfig, run: Run | None, *, checkpoint: bool = False
) -> None:
    predicted = predict(model, batch, sleep, checkpoint_activations=checkpoint, run=run)
    F.cross_entropy(predicted.logits, predicted.targets).backward()


def _count_flops(model: HybridLM, batch: Batch, sleep: SleepConfig) -> int:
    targets = batch.stream.targets
    forward = batch_flops(
        model.config,
        cut_training(targets, sleep),
        rows=len(targets),
        num_scored=int((targets != NO_LOSS).sum()),
    )
    return training_flops(forward)
