"""Training throughput of a 1.4 B hybrid on a GPU, at lengths and windows of the paper's Fig. 6."""

from __future__ import annotations

import dataclasses
import functools

import torch
import torch.nn.functional as F

from slowwave.evaluation.flops import batch_flops, training_flops
from slowwave.lab.bench.machine import Machine, matmul_gflops
from slowwave.lab.bench.report import Row, Section, timed_row
from slowwave.lab.bench.timing import Times, Work, time_in_turn
from slowwave.models.backbone import HybridLM, Run
from slowwave.models.config import ModelConfig
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.schedule import NO_LOSS, cut_training
from slowwave.sleep.unroll import unroll

MODEL = ModelConfig(
    vocab_size=49_152,
    width=2048,
    layers=("gdn", "gdn", "gdn", "attn") * 6,
    mlp_hidden=5632,
    attn_heads=16,
    delta_heads=16,
    key_dim=96,
    value_dim=128,
)
LENGTH = 12_000
WINDOWS = (1000, 2000, 4000)
PASSES = (1, 2, 4)
BATCHES = (1, 2, 4, 8)
SCORED = 16
SQUARE = 8192
ROUNDS = 3
PAPER_TOKENS_PER_SECOND = {(1000, 1): 19_800, (1000, 2): 9_800, (1000, 4): 4_600}


def run_large(device: torch.device, machine: Machine) -> list[Section]:
    """Forward and backward in bfloat16 with checkpointed activations; the best of several batches.

    Raises ValueError on a machine without a GPU.
    """
    del machine
    if device.type != "cuda":
        raise ValueError("benchmark 'large' trains 1.4 B weights and needs a GPU; use 'train' here")
    return [measure_large(device)]


def measure_large(device: torch.device) -> Section:
    """As `run_large`, on any device."""
    model = HybridLM(MODEL).to(device)
    model.set_compute_dtype(torch.bfloat16)
    rate = matmul_gflops({(SQUARE, SQUARE, SQUARE): 1}, torch.bfloat16, device)
    rows: list[Row] = []
    for window in WINDOWS:
        for passes in PASSES:
            sleep = SleepConfig(window=window, passes=passes)
            batch, times = _time_best_batch(model, sleep)
            rows.append(_row(sleep, batch, times, rate))
    notes = [
        f"{model.num_parameters / 1e9:.2f} B parameters, {LENGTH:,} tokens a row, best of batches "
        f"{BATCHES}; the paper measured on one H200",
        f"matmul share is of {rate / 1e3:,.0f} TFLOP/s; computing again earns no credit",
    ]
    return Section(title="Training a 1.4 B hybrid", rows=rows, notes=notes)


def _time_best_batch(model: HybridLM, sleep: SleepConfig) -> tuple[int, Times]:
    """The batch with the most tokens per second among those that fit."""
    best: tuple[int, Times] | None = None
    for batch in BATCHES:
        torch.compiler.reset()  # every shape anew: past a limit torch stops compiling, in silence
        run = torch.compile(model.run, dynamic=False)
        work = Work(functools.partial(_step, model, sleep, run, batch))
        try:
            times = time_in_turn({"step": work}, rounds=ROUNDS, warmups=2)["step"]
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        if best is None or times.median / batch < best[1].median / best[0]:
            best = batch, times
    if best is None:
        raise ValueError(
            f"not even a batch of {BATCHES[0]} fits this GPU's memory; use a larger one"
        )
    return best


def _step(model: HybridLM, sleep: SleepConfig, run: Run, batch: int) -> None:
    tokens = torch.zeros(batch, LENGTH, dtype=torch.int64, device=model.device)
    targets = _targets(batch).to(model.device)
    rollout = unroll(
        model,
        tokens,
        targets,
        sleep,
        checkpoint_activations=True,
        keep_hidden=False,
        run=run,
    )
    F.cross_entropy(rollout.logits, targets[targets != NO_LOSS]).backward()
    model.zero_grad(set_to_none=True)


def _targets(batch: int) -> torch.Tensor:
    """Loss on the last SCORED tokens, as for one answer."""
    targets = torch.full((batch, LENGTH), NO_LOSS)
    targets[:, -SCORED:] = 0
    return targets


def _row(sleep: SleepConfig, batch: int, times: Times, rate: float) -> Row:
    segments = cut_training(_targets(batch), sleep)
    forward = batch_flops(MODEL, segments, rows=batch, num_scored=batch * SCORED)
    tokens_per_second = batch * LENGTH / times.median
    paper = PAPER_TOKENS_PER_SECOND.get((sleep.window, sleep.passes))
    row = timed_row(
        f"window {sleep.window:,}, N = {sleep.passes}",
        f"batch {batch}, {tokens_per_second:,.0f} tokens/s",
        times,
        flops=training_flops(forward),
    )
    assert row.gflops is not None
    return dataclasses.replace(
        row,
        matmul_share=row.gflops / rate,
        time_ratio=None if paper is None else paper / tokens_per_second,
        ratio_to=None if paper is None else f"the paper, {paper:,} tokens/s",
    )
