"""Fastest and median milliseconds of the delta rule, reading, a token, a sleep and a training step.

    python examples/part_times.py

One thread, one JSON line. To compare two commits, call it in a worktree of each in turn, several
times, with PYTHONPATH=src, on one core that does nothing else.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from slowwave.models.backbone import HybridLM
from slowwave.models.config import ModelConfig
from slowwave.ops.gated_rules import gated_delta_rule
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.consolidate import consolidate
from slowwave.sleep.schedule import NO_LOSS
from slowwave.sleep.stream import read_stream
from slowwave.sleep.unroll import unroll

READER = ModelConfig(
    vocab_size=512,
    width=256,
    layers=("attn", "gdn") * 4,
    mlp_hidden=682,
    attn_heads=4,
    delta_heads=4,
    key_dim=64,
    value_dim=64,
)
LEARNER = ModelConfig(vocab_size=64, max_beta=2.0)


def time_work(work: Callable[[], object], calls: int) -> tuple[float, float]:
    """Fastest and median milliseconds of a call, after two that are not counted."""
    taken: list[float] = []
    for _ in range(calls + 2):
        began = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - began))
    return min(taken[2:]), statistics.median(taken[2:])


def draw_rule_inputs(generator: torch.Generator) -> list[Tensor]:
    """q, k, v, log_decay, beta and state of 2 rows, 512 tokens, 4 heads, K = 64, V = 128."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    q, k = (F.normalize(normal(2, 512, 4, 64), dim=-1) for _ in range(2))
    gates = -normal(2, 512, 4).abs() / 10, normal(2, 512, 4).sigmoid()
    return [q, k, normal(2, 512, 4, 128), *gates, normal(2, 4, 64, 128)]


def time_parts() -> dict[str, tuple[float, float]]:
    """Fastest and median milliseconds of every part, by its name."""
    generator, times = torch.Generator().manual_seed(0), dict[str, tuple[float, float]]()
    inputs = draw_rule_inputs(generator)
    with torch.no_grad():
        times["rule forward"] = time_work(lambda: gated_delta_rule(*inputs), 30)
    leaves = [each.clone().requires_grad_() for each in inputs]

    def train_rule() -> None:
        read, state = gated_delta_rule(*leaves)
        (read.sum() + state.sum()).backward()

    times["rule forward and backward"] = time_work(train_rule, 20)
    reader, sleep = HybridLM(READER).eval(), SleepConfig(window=128, passes=4)
    tokens = torch.randint(512, (1, 1024), generator=generator)
    with torch.inference_mode():
        fresh = reader.initial_state(1)
        times["read 1024, N = 4"] = time_work(lambda: read_stream(reader, tokens, fresh, sleep), 5)
        begun = read_stream(reader, tokens[:, :64], fresh, sleep)[1]

        def read_one_by_one() -> None:
            state = begun
            for token in tokens[:, :40].split(1, dim=1):
                _, state = reader.read(token, state)

        times["40 tokens"] = time_work(read_one_by_one, 15)
        full = reader.read(tokens[:, :128], fresh)[1]
        times["sleep, N = 4"] = time_work(lambda: consolidate(reader, full, passes=4), 12)
    learner, learned = HybridLM(LEARNER), SleepConfig(window=20, passes=4)
    batch = torch.randint(64, (32, 60), generator=generator)
    targets = torch.full_like(batch, NO_LOSS)
    targets[:, -4:] = 1

    def step() -> None:
        rollout = unroll(learner, batch, targets, learned, keep_hidden=False)
        F.cross_entropy(rollout.logits, targets[targets != NO_LOSS]).backward()
        learner.zero_grad(set_to_none=True)

    times["training step, N = 4"] = time_work(step, 10)
    return times


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(time_parts()))
