"""Which examples a training step sees, and making them ahead of it."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch

from slowwave.sleep.objective import Batch
from slowwave.tasks.base import Task


def step_indices(seed: int, step: int, batch_size: int) -> npt.NDArray[np.int64]:
    """Indices (batch_size,) of the training examples of `step`, spread over 0 .. 2^62 - 1.

    A hash of seed and step seeds a generator of its own, so that two seeds share nothing and a
    resumed run sees what an unbroken one would have seen.
    """
    digest = hashlib.blake2b(f"slowwave training order {seed} {step}".encode()).digest()
    generator = np.random.Generator(np.random.Philox(int.from_bytes(digest[:16], "little")))
    return generator.integers(0, 2**62, size=batch_size, dtype=np.int64)


class BatchesAhead:
    """Training batches on `device`; while a step computes, the next one's is made beside it."""

    def __init__(self, task: Task, *, seed: int, batch_size: int, device: torch.device) -> None:
        self._task, self._seed, self._batch_size = task, seed, batch_size
        self._device = device
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
        self._ahead: dict[int, Future[Batch]] = {}

    def take(self, step: int) -> Batch:
        """The batch of `step`, whichever was taken before."""
        made = self._ahead.pop(step, None) or self._worker.submit(self._make, step)
        self._ahead = {step + 1: self._worker.submit(self._make, step + 1)}
        return made.result()

    def _make(self, step: int) -> Batch:
        indices = step_indices(self._seed, step, self._batch_size)
        return self._task.batch("train", indices).to(self._device)
