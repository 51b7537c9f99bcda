"""Seconds of training steps of a recipe, each alone, and of Muon's part in them.

    python examples/step_times.py recipes/depo-mini.toml 8 [train.compile=false ...]

The first step, which compiles, is left out. On a processor with AVX-512 the same without it:
ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 in front.
To compare two commits, call it in a worktree of each in turn, with PYTHONPATH=src.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from typing import Any

import torch

from slowwave.experiment import build, load_experiment, make_trainer
from slowwave.training.process import keep_freed_memory
from slowwave.training.run_folder import RunFolder


def time_steps(recipe: str, steps: int, overrides: dict[str, Any]) -> tuple[list[float], float]:
    """Seconds of each step, and the least that Muon took in one."""
    keep_freed_memory()
    config = load_experiment(recipe, overrides)
    torch.set_num_threads(config.train.threads or 1)
    model, task = build(config)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(config, model, task, RunFolder(folder))
        muon, spent, taken = trainer.optimizers["muon"], list[float](), list[float]()
        step_of_muon = muon.step

        def time_muon(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            result = step_of_muon(*arguments, **options)
            spent.append(time.perf_counter() - began)
            return result

        muon.step = time_muon
        for _ in range(steps + 1):
            began = time.perf_counter()
            trainer._step()
            taken.append(time.perf_counter() - began)
    return taken[1:], min(spent[1:])


if __name__ == "__main__":
    recipe, steps, *changes = sys.argv[1:]
    overrides = {
        key: json.loads(value) for key, _, value in (each.partition("=") for each in changes)
    }
    seconds, muon = time_steps(recipe, int(steps), overrides)
    print(
        f"fastest {min(seconds):.3f} s of {[round(each, 3) for each in seconds]}; Muon {muon:.4f} s"
    )
