"""What a sleep costs, in reads of its window."""

from __future__ import annotations

import dataclasses
import functools

import torch

from slowwave.evaluation.flops import forward_flops
from slowwave.lab.bench.machine import Machine
from slowwave.lab.bench.models import MODEL, draw_tokens
from slowwave.lab.bench.report import Section, timed_row
from slowwave.lab.bench.timing import Work, time_in_turn
from slowwave.models.backbone import HybridLM
from slowwave.sleep.consolidate import consolidate

WINDOW = 512
PASSES = (2, 3, 4)
ROUNDS = 41
READ = "one-call read, no logits"


def run_sleep(device: torch.device, machine: Machine) -> list[Section]:
    """Times sleeps of 2..4 passes in turn with reads of the window; ratios are to N - 1 reads."""
    with torch.inference_mode():
        model = HybridLM(MODEL).eval().to(device)
        tokens = draw_tokens(model, WINDOW)
        start = model.initial_state(1)
        _, full = model.read(tokens, start)
        works = {READ: Work(lambda: model.run(model.embed(tokens), start))}
        for passes in PASSES:
            sleep = functools.partial(consolidate, model, full, passes=passes)
            works[f"sleep, N = {passes}"] = Work(sleep)
        times = time_in_turn(works, rounds=ROUNDS)
    counts = dict(zip(times, (1, *(passes - 1 for passes in PASSES)), strict=True))
    rows = [
        timed_row(
            f"a window of {WINDOW}",
            name,
            each,
            reference=(f"{counts[name]} reads", times[READ]),
            reference_calls=1,
            machine=machine,
            flops=_flops(counts[name], asleep=name != READ),
        )
        for name, each in times.items()
    ]
    rows = [
        dataclasses.replace(row, time_ratio=row.time_ratio / counts[row.by])
        for row in rows
        if row.time_ratio is not None
    ]
    note = "the last pass of a sleep ends with its last write, so it has fewer operations"
    return [Section(title="Asleep", rows=rows, notes=[note])]


def _flops(num_passes: int, *, asleep: bool) -> int:
    whole = forward_flops(MODEL, WINDOW)
    if not asleep:
        return whole
    return (num_passes - 1) * whole + forward_flops(MODEL, WINDOW, evicts=True)
