"""What a sleep costs, in reads of its window."""

from __future__ import annotations

import functools

import torch

from slowwave.bench.machine import Machine
from slowwave.bench.models import MODEL, draw_tokens
from slowwave.bench.report import Row, Section
from slowwave.bench.timing import Work, time_in_turn
from slowwave.evaluation.flops import forward_flops
from slowwave.model.hybrid import HybridLM
from slowwave.sleep.consolidate import consolidate

WINDOW = 512
PASSES = (2, 3, 4)
ROUNDS = 41
READ = "one-call read, no logits"


def run_sleep(device: torch.device, machine: Machine) -> list[Section]:
    """Times sleeps of 2..4 passes in turn with reads; the ratio is to N - 1 reads."""
    with torch.inference_mode():
        model = HybridLM(MODEL).eval().to(device)
        tokens = draw_tokens(model, WINDOW)
        start = model.initial_state(1)
        _, full = model.read(tokens, start)
        works: dict[str, Work] = {READ: lambda: model.run(model.embed(tokens), start)}
        for passes in PASSES:
            works[f"sleep, N = {passes}"] = functools.partial(
                consolidate, model, full, passes=passes
            )
        times = time_in_turn(works, rounds=ROUNDS)
    reads = dict(zip(times, (1, *(passes - 1 for passes in PASSES)), strict=True))
    rows: list[Row] = []
    for name, each in times.items():
        gflops = reads[name] * forward_flops(MODEL, WINDOW) / each.median / 1e9
        rows.append(
            Row(
                what=f"a window of {WINDOW}",
                by=name,
                milliseconds=1e3 * each.median,
                spread=each.spread,
                ratio=each.over(times[READ]) / reads[name],
                ratio_to=f"{reads[name]} reads",
                gflops=gflops,
                matmul_share=gflops / machine.float32_gflops,
            )
        )
    return [Section(title="Asleep", rows=rows)]
